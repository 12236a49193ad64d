"""Says every message back. `close N` closes with that code."""

import asyncio

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message.split()[1]), "as asked")
        else:
            await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, subprotocols=["chat.v2"], max_size=2**22) as server:
        print("port", server.sockets[0].getsockname()[1])
        await server.serve_forever()


asyncio.run(main())
