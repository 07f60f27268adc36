"""What large requests leave behind, and how long they keep small ones waiting."""

import threading
import time

from model_server import generate, long_prompt, method, request, text, within

MiB = 1 << 20
EVERYTHING = {"name_patterns": ["*"]}


def _captures_at_once(server, count):
    """Captures of everything over 500 positions, each with some 200 MB of answer."""
    calls = []
    channels = [server.channel() for _ in range(count)]
    for channel in channels:
        asked = request("RunWithCache", prompt=long_prompt(500), filter=EVERYTHING)
        calls.append(method(channel, "RunWithCache")(asked, timeout=300))
    return channels, calls


def test_memory_goes_back_when_slow_readers_have_gone(start):
    server = start("--stall-seconds", "60")
    with server.channel() as others:
        channels, calls = _captures_at_once(server, 1)  # what a server has touched that has answered one
        for _ in calls[0]:
            pass
        channels[0].close()
        generate(others, text("hello"), 4)
        assert within(60, lambda: server.metrics()["mechinterp_reserved_bytes"] == 0)
        time.sleep(3)
        before = server.resident_bytes()

        channels, calls = _captures_at_once(server, 8)
        for call in calls:
            next(call)  # and no more
        assert server.resident_bytes() > before + 500 * MiB
        for channel in channels:
            channel.close()
        assert within(60, lambda: server.metrics()["mechinterp_reserved_bytes"] == 0)
        assert within(30, lambda: server.resident_bytes() < 1.05 * before + 8 * MiB), (
            f"{before / MiB:.0f} MiB before, {server.resident_bytes() / MiB:.0f} after"
        )


def test_a_few_tokens_do_not_wait_for_many_captures(start):
    server = start()
    with server.channel() as others:
        alone = generate(others, text("hello"), 4)
        _, calls = _captures_at_once(server, 16)
        readers = [threading.Thread(target=lambda call=call: sum(1 for _ in call)) for call in calls]
        for reader in readers:
            reader.start()
        assert within(30, lambda: server.metrics()["mechinterp_requests_in_progress"] >= 8)
        assert generate(others, text("hello"), 4) == alone
        # Before most of them: by their number, since time is not this machine's to promise.
        ahead = sum(not reader.is_alive() for reader in readers)
        for reader in readers:
            reader.join()
        assert ahead <= 4, ahead
