"""Somebody's empty files that take all the inodes of a filesystem."""

from __future__ import annotations

import errno
import os

from agent.basics import Json, RigError
from agent.shortages.base import Shortage

FOLDER = ".inodes"
_MOST = 20000
"""A filesystem that has more inodes than this is not to be filled in a test's time."""


class Inodes(Shortage):
    """The gauge is statfs of the layer: inodes in use, of all that there are."""

    _imposed = False

    def impose(self) -> None:
        """Put the limit in force. Raises RigError."""
        folder = f"{self.layer().path}/{FOLDER}"
        try:
            os.mkdir(folder)
            for number in range(_MOST):
                os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise RigError(f"cannot fill {self.layer().name}: {error}") from error
            self._imposed = True
            return
        raise RigError(f"{self.layer().name} has more than {_MOST} inodes")

    def relieve(self) -> None:
        """Take it away again. Raises RigError."""
        folder = f"{self.layer().path}/{FOLDER}"
        try:
            for name in os.listdir(folder):
                os.unlink(f"{folder}/{name}")
            os.rmdir(folder)
        except OSError as error:
            raise RigError(f"cannot remove what fills {self.layer().name}: {error}") from error
        self._imposed = False

    def reading(self) -> Json:
        """The gauge. Inodes."""
        room = os.statvfs(self.layer().path)
        limit = room.f_files if self._imposed else None
        return self.gauge(room.f_files - room.f_ffree, limit)
