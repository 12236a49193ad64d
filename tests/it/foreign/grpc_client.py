"""Tries grpc_server.py at the address in the first argument; prints one line per thing that works.

The second argument, if any, is a file with the roots to trust: then over TLS."""

import queue
import sys
import time

import grpc

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def main(address, roots=None):
    if roots:
        credentials = grpc.ssl_channel_credentials(open(roots, "rb").read())
        options = OPTIONS + (("grpc.ssl_target_name_override", "site.example"),)
        channel = grpc.secure_channel(address, credentials, options=options)
    else:
        channel = grpc.insecure_channel(address, options=OPTIONS)

    def method(kind, name):
        return getattr(channel, kind)("/test.Bytes/" + name)

    echo = method("unary_unary", "Echo")
    answer, call = echo.with_call(b"hello", metadata=(("x-ask", "this"),), timeout=20)
    assert answer == b"hello"
    assert dict(call.initial_metadata())["x-initial"] == "this", call.initial_metadata()
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailing"] == "end" and trailing["blob-bin"] == b"\x00\xff", trailing
    print("unary")

    large = bytes(range(256)) * (4 * 1024 * 16)
    assert echo(large, timeout=60) == large
    print("large")

    assert [int(n) for n in method("unary_stream", "Count")(b"500", timeout=20)] == list(range(500))
    print("server streaming")

    assert method("stream_unary", "Total")((str(n).encode() for n in range(500)), timeout=20) == b"124750"
    print("client streaming")

    asked = queue.Queue()
    answers = method("stream_stream", "Chat")(iter(asked.get, None), timeout=20)
    for word in (b"one", b"two", b"three"):
        asked.put(word)
        assert next(answers) == word.upper()
    asked.put(None)
    assert list(answers) == []
    print("both streaming")

    try:
        method("unary_unary", "Fail")(b"", timeout=20)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "no, because \u00e4", error.details()
        assert dict(error.trailing_metadata())["x-why"] == "asked"
    print("error trailers")

    began = time.monotonic()
    try:
        method("unary_unary", "Sleep")(b"30", timeout=1)
        raise AssertionError("no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - began < 25
    print("deadline")

    call = method("unary_stream", "Forever")(b"")
    assert next(call) == b"begun"
    call.cancel()
    print("cancellation")

    # Many at once, over few connections.
    calls = [echo.future(str(n).encode(), timeout=60) for n in range(500)]
    assert [call.result() for call in calls] == [str(n).encode() for n in range(500)]
    print("many")
    channel.close()


main(*sys.argv[1:])
