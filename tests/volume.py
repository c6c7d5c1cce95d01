"""A file system of its own in a file, mounted where nobody else sees it, whose power can be cut.

The cut is the kernel's own: an ioctl after which the file system writes nothing more, as if the
machine had stopped. What was not synced, names included, is gone after the next mount.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = ("ext4", "xfs")
# The same number for both: XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN.
GOING_DOWN = 0x8004587D
FLUSH_LOG, LOSE_LOG = 1, 2
# Sparse; room for the log's floor of free space, and for what a life writes.
BYTES = 1 << 30
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
INSIDE = "HYDRANT_TEST_IN_NAMESPACE"
TRIES = 50
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Volume:
    def __init__(self, kind, folder, size=BYTES, image=None, make=(), written=0):
        """With `written`, the image has room for that many bytes at its start, and none yet behind."""
        self.image = Path(image or folder / "image")
        with open(self.image, "wb") as file:
            file.truncate(size)
        run(*MAKE[kind], *make, str(self.image))
        with open(self.image, "r+b") as file:
            start = file.read(written)
            file.seek(0)
            file.write(start)
        self.path = folder / "volume"
        self.path.mkdir()
        self.mount()

    def mount(self):
        # Finding a free loop device and taking it are two steps, and others take some too.
        for tried in range(TRIES):
            try:
                return run("mount", "-o", "loop", str(self.image), str(self.path))
            except OSError:
                if tried == TRIES - 1:
                    raise
                time.sleep(0.1)

    def unmount(self):
        for tried in range(TRIES):
            try:
                return run("umount", str(self.path))
            except OSError:
                # A process that was killed may still be closing its files.
                if tried == TRIES - 1:
                    raise
                time.sleep(0.1)

    def cut(self, flush_log=False):
        """Nothing is written from here on. With `flush_log` the file system's own journal is, so
        that names and lengths are durable whose bytes are not."""
        top = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(top, GOING_DOWN, struct.pack("I", FLUSH_LOG if flush_log else LOSE_LOG))
        finally:
            os.close(top)

    def remount(self):
        self.unmount()
        self.mount()

    def remove(self):
        with contextlib.suppress(OSError):
            self.unmount()
        with contextlib.suppress(OSError):
            self.image.unlink()


def enter_namespace():
    """Starts this program again with mounts and processes of its own: whatever ends it, the kernel
    ends its servers, and takes its mounts and loop devices away."""
    if os.environ.get(INSIDE):
        return
    os.environ[INSIDE] = "1"
    os.execvp("unshare", [*UNSHARE, sys.executable, *sys.argv])


UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def why_not(kind):
    """Why there can be no such file system here; None where there can."""
    if os.geteuid() != 0:
        return "only root mounts file systems"
    if kind not in Path("/proc/filesystems").read_text().split():
        return f"the kernel has no {kind}"
    if not shutil.which(MAKE[kind][0], path=SBIN):
        return f"there is no {MAKE[kind][0]}"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        with open(image, "wb") as file:
            file.truncate(512 << 20)
        try:
            run(*MAKE[kind], str(image))
            run(*UNSHARE, "sh", "-c", 'mount -o loop "$0" "$1" && umount "$1"', str(image), folder)
        except OSError as error:
            return f"loop mounts are not permitted: {error}"
    return None


def roomy():
    """A folder in memory where there is room for images, else the usual one."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > 4 << 30:
        return shared
    return None


def run(*command):
    """Runs a program of the system; an OSError says what it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**os.environ, "PATH": SBIN, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
