"""Tries an echo server at the URL in the first argument; prints one line per thing that works."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url):
    async with connect(url, subprotocols=["chat.v1", "chat.v2"], proxy=None, max_size=2**22) as connection:
        assert connection.subprotocol == "chat.v2", connection.subprotocol
        print("subprotocol")
        for text in ["", "hello", "häßlich ☂"]:
            await connection.send(text)
            assert await connection.recv() == text
        print("text")
        data = bytes(range(256)) * 8
        await connection.send(data)
        assert await connection.recv() == data
        print("binary")
        large = os.urandom(1024 * 1024)
        await connection.send(large)
        assert await connection.recv() == large
        print("large")
        await connection.send(["one ", "message ", "in pieces"])
        assert await connection.recv() == "one message in pieces"
        print("fragments")
        pong = await connection.ping(b"are you there")
        assert await asyncio.wait_for(pong, 10) >= 0
        print("ping")
    assert (connection.close_code, connection.close_reason) == (1000, ""), connection.close_code
    print("close")
    for code in (1001, 1011, 4321):
        async with connect(url, subprotocols=["chat.v2"], proxy=None) as connection:
            await connection.send(f"close {code}")
            try:
                await connection.recv()
                raise AssertionError("the server did not close")
            except ConnectionClosed as closed:
                assert closed.rcvd.code == code and closed.rcvd.reason == "as asked", closed
    print("close codes")


asyncio.run(main(sys.argv[1]))
