"""Runs the `gw` under test for the interop scripts, and reports their cases."""

import atexit
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
import traceback


def free_port():
    """A port below the range that the system hands out, so that no connection takes it before the gateway does."""
    for _ in range(100):
        port = random.randrange(16000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port was found")


def wait_for(port, process=None):
    """Waits until somebody accepts on the port."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"gw ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nobody accepts on port {port}")


class Gateway:
    """A running `gw serve`, from the binary that `GW_BIN` names."""

    def __init__(self, config, cert=None, key=None):
        self.port, self.tls_port = free_port(), free_port()
        self.dir = tempfile.TemporaryDirectory(prefix="gw-interop-")
        file = pathlib.Path(self.dir.name, "gateway.yaml")
        file.write_text(config)
        command = [os.environ["GW_BIN"], "serve", str(file), "--listen", f"127.0.0.1:{self.port}"]
        if cert:
            command += ["--listen-tls", f"127.0.0.1:{self.tls_port}", "--tls-cert", cert, "--tls-key", key]
        self.process = subprocess.Popen(command)
        # A script that breaks off leaves nothing running.
        atexit.register(self.process.kill)
        wait_for(self.port, self.process)

    def terminate(self):
        """Asks it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout=20):
        """Asks it to drain and gives its exit code; a gateway that does not end is killed and fails the run."""
        self.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.dir.cleanup()


class Cases:
    """Counts cases and says which failed."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def run(self, name, case, *args):
        try:
            case(*args)
        except Exception:
            self.failed += 1
            print(f"FAILED {name}")
            traceback.print_exc()
        else:
            self.passed += 1

    def equal(self, name, got, want):
        self.run(name, check_equal, got, want)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        raise SystemExit(1 if self.failed else 0)


def check_equal(got, want):
    assert got == want, f"\n got {got!r}\nwant {want!r}"
