"""Echoes like websocket_echo.py, but with room for what a conformance suite sends."""

import asyncio
import logging

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    # The suite breaks every rule there is; the server's complaints about that are of no interest.
    logging.disable(logging.CRITICAL)
    async with serve(echo, "127.0.0.1", 0, max_size=2**26, ping_interval=None) as server:
        print("port", server.sockets[0].getsockname()[1])
        await server.serve_forever()


asyncio.run(main())
