"""A WebSocket on a stream of HTTP/2 (RFC 8441), by h2 and wsproto, through the proxy at argv[1]."""

import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events

host, port = sys.argv[1].rsplit(":", 1)
connection = socket.create_connection((host, int(port)), timeout=20)
http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
http.initiate_connection()
connection.sendall(http.data_to_send())


def events():
    while True:
        data = connection.recv(65536)
        if not data:
            return
        for event in http.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            yield event
        connection.sendall(http.data_to_send())


coming = events()


def until(kind):
    return next(event for event in coming if isinstance(event, kind))


until(h2.events.RemoteSettingsChanged)
assert http.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
print("offered")

head = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "app"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "chat.v2"),
]
http.send_headers(1, head)
connection.sendall(http.data_to_send())
print(dict(until(h2.events.ResponseReceived).headers)[b":status"].decode())

talk = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)


def say(event):
    data = talk.send(event)
    while data:
        room = min(http.local_flow_control_window(1), http.max_outbound_frame_size, len(data))
        if room == 0:
            until(h2.events.WindowUpdated)
            continue
        http.send_data(1, data[:room])
        connection.sendall(http.data_to_send())
        data = data[room:]


def hear():
    whole = ""
    while True:
        for event in talk.events():
            if isinstance(event, wsproto.events.TextMessage):
                whole += event.data
                if event.message_finished:
                    return whole
            if isinstance(event, wsproto.events.CloseConnection):
                return f"close {event.code}"
        data = until((h2.events.DataReceived, h2.events.StreamEnded))
        talk.receive_data(data.data if isinstance(data, h2.events.DataReceived) else None)


say(wsproto.events.TextMessage("over h2"))
assert hear() == "over h2"
print("text")
large = "x" * 1_000_000
say(wsproto.events.TextMessage(large))
assert hear() == large
print("large")
say(wsproto.events.TextMessage("close 4001"))
print(hear())

# A plain CONNECT is for forward proxies.
http.send_headers(3, [(":method", "CONNECT"), (":authority", "app:80")])
connection.sendall(http.data_to_send())
print("refused", dict(until(h2.events.ResponseReceived).headers)[b":status"].decode())
