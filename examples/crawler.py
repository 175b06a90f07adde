"""A crawler: hundreds of pages that each take a tenth of a second, fetched at once by tasks of very few containers.

The site is started here, on loopback: a page for each module of the standard library, with links to what it imports.
Look at `@modal.concurrent`, at the `async for` that sees pages as they come, and at how few containers waiting needs.
"""

import ast
import asyncio
import collections
import os
import re
import sysconfig
import time
import urllib.parse
import warnings
from pathlib import Path

import upswell as modal

app = modal.App("crawler")
LATENCY_SECONDS = 0.1


@app.function()
@modal.concurrent(max_inputs=100)
async def fetch(url: str) -> tuple[str, list[str], int]:
    """Return the page's address, the addresses it links to, and the process that fetched it."""
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {parts.path} HTTP/1.0\r\n\r\n".encode())
    body = (await reader.read()).decode()
    writer.close()
    return url, [urllib.parse.urljoin(url, link) for link in re.findall(r'href="([^"]+)"', body)], os.getpid()


@app.local_entrypoint()
async def main(start: str = "pydoc"):
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as site:
        address = "http://{}:{}/".format(*site.sockets[0].getsockname())
        frontier = [address + start]
        seen, links, containers = set(frontier), collections.Counter(), set()
        began, depth = time.perf_counter(), 0
        while frontier:
            found = []
            async for _, targets, container in fetch.map.aio(frontier, order_outputs=False):
                links.update(targets)
                containers.add(container)
                found += targets
            print(f"{depth} clicks away: {len(frontier):>4} pages")
            frontier, depth = sorted(set(found) - seen), depth + 1
            seen.update(frontier)
        seconds = time.perf_counter() - began

    print("most linked: " + ", ".join(f"{url.removeprefix(address)} {count}" for url, count in links.most_common(6)))
    print(f"{len(seen)} pages, {links.total():,} links, {len(seen) / seconds:,.0f} pages/s", end=" ")
    print(f"({1 / LATENCY_SECONDS:.0f}/s one by one), containers: {len(containers)}")


# -- the site ------------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readline()
    await asyncio.sleep(LATENCY_SECONDS)  # the way there and back
    name = request.split()[1].decode().strip("/")
    body = "".join(f'<a href="/{module}">{module}</a>\n' for module in imports(name))
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>{name}</h1>\n{body}".encode())
    await writer.drain()
    writer.close()


def imports(name: str) -> list[str]:
    """Return the modules of the standard library that this one imports by their full names."""
    path = source(name)
    if path is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in other people's strings
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return sorted(module for module in plain | named if source(module))


def source(name: str) -> Path | None:
    base = Path(sysconfig.get_paths()["stdlib"], *name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)
