"""A line whose far end stops reading: TCP's window closes, as with a client that was suspended."""

import selectors
import socket
import threading


class StallingLink:
    """Forwards connections to a port; what the server says, only until stall()."""

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._stalled = False
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._listener]
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall(self):
        """From now on nothing of the server's is read."""
        self._stalled = True

    def close(self):
        """Cuts every connection."""
        self._ended = True
        self._thread.join()
        for each in self._sockets:
            each.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for source, sink, from_server in ((client, server, False), (server, client, True)):
            self._sockets.append(source)
            self._selector.register(source, selectors.EVENT_READ, (sink, from_server))

    def _run(self):
        while not self._ended:
            for key, _ in self._selector.select(timeout=0.05):
                if key.data is None:
                    self._accept()
                    continue
                sink, from_server = key.data
                if from_server and self._stalled:
                    self._selector.unregister(key.fileobj)  # and never read again
                    continue
                try:
                    data = key.fileobj.recv(1 << 16)
                    if data:
                        sink.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    self._selector.unregister(key.fileobj)
                    try:
                        sink.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass
