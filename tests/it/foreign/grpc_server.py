"""A gRPC service of bytes, without generated code."""

import sys
import threading
import time
from concurrent import futures

import grpc

cancelled = threading.Event()


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-ask", "")),))
    context.set_trailing_metadata((("x-trailing", "end"), ("blob-bin", b"\x00\xff")))
    return request


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(int(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no, because \u00e4")


def sleep(request, context):
    print("deadline", "%.1f" % context.time_remaining(), flush=True)
    time.sleep(float(request))
    return request


def forever(request, context):
    context.add_callback(lambda: print("cancelled", flush=True))
    yield b"begun"
    while context.is_active():
        time.sleep(0.02)


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=16), options=(("grpc.max_receive_message_length", -1),)
    )
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Forever": grpc.unary_stream_rpc_method_handler(forever),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Bytes", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("port", port, flush=True)
    server.wait_for_termination()


main()
