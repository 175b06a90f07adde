"""What becomes of calls to actors that do not work."""


class RayError(Exception):
    """Any of these."""


class RayTaskError(RayError):
    """The call raised."""


class RayActorError(RayError):
    """The actor is gone."""
