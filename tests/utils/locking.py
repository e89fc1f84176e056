"""Another run that holds a folder."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def another_run(folder):
    """A process that holds a folder as a run does, killed at the end."""
    holding = "import fcntl, os, sys, time\n"
    holding += "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
    holding += "print(flush=True)\ntime.sleep(60)"
    command = [sys.executable, "-S", "-c", holding, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


def is_held(folder):
    """Whether a run that is started now would be refused."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
