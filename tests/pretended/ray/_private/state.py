"""What the cluster knows of its actors and nodes."""

from ..cluster import Actors


def available_resources_per_node() -> dict[str, dict[str, float]]:
    return Actors().free()


def actors(name: str) -> dict[str, str]:
    return {"State": "ALIVE" if Actors().node(name) else "PENDING_CREATION"}
