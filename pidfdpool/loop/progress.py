"""How far a worker is: which of the tasks that it was sent it has begun, and which are taken back.

Tokens decide (see `tokens`), and the worker records in its black box which task it begins. A task can change both: it
can add tokens, take them, or write into the black box. So what cannot be true is not believed. A task that is
recorded as begun is not taken back, and no more tasks are left than were sent.

Under the pool's lock; closed by the pool thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.process import native
from pidfdpool.transport import black_box, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence


class Progress:
    """The progress of one worker. Owns the descriptor of its tokens; the one of its black box belongs to the link."""

    def __init__(self, tokens_fd: int) -> None:
        self._tokens: int | None = tokens_fd
        self._box: int | None = None
        self._taken_back = 0  # the first task that was, as the worker was told, and not yet that it is over

    def use_black_box(self, box: int) -> None:
        """Read and write the worker's black box from now on."""
        self._box = box
        black_box.announce_take_backs(box)

    def put_tokens(self, count: int) -> None:
        """Add tokens for `count` tasks, before they are sent. A task without a token counts as taken back."""
        if self._taken_back:
            self._note_taken_back(0)
        if self._tokens is not None:
            tokens.put(self._tokens, count)

    def take_back(self, last: Sequence[int]) -> int:
        """Take back the last tasks that were sent, as far as they have not begun; return how many.

        The black box also tells the worker the first task that was taken back, because a task may have added tokens.
        """
        before = self._taken_back or black_box.UNDECIDED
        if not self._taken_back:
            self._note_taken_back(before)
        count = 0 if self._tokens is None else tokens.take_many(self._tokens, len(last))
        if count and self._box is not None:
            self._note_taken_back(last[-count])
            begun = [last.index(number) for number in black_box.claimed_tasks(self._box) if number in last[-count:]]
            if begun:
                count = len(last) - 1 - max(begun)
                self._note_taken_back(last[-count] if count else before)
        return count

    def _note_taken_back(self, first: int) -> None:
        if self._box is not None:
            self._taken_back = first
            black_box.record_taken_back(self._box, first)

    def unbegun(self, held: Sequence[int]) -> int:
        """Return how many of the tasks that a dead worker had, counted from the last one, it has not begun.

        held: the tasks without an answer, in their order. The worker's record tells; without a black box, the tokens
        that are left tell.
        """
        begun = self.last_begun()
        if begun is None:
            return 0 if self._tokens is None else tokens.take_many(self._tokens, len(held) + 1)
        return len(held) - 1 - held.index(begun) if begun in held else len(held)

    def last_begun(self) -> int | None:
        """Return the number of the task that the worker has begun last; 0: none; None: it is not known."""
        return None if self._box is None else black_box.last_begun(self._box)

    def forget_begun(self) -> None:
        """Forget what the worker has begun last, before it is given the same again."""
        if self._box is not None:
            black_box.clear_last_begun(self._box)

    def close(self) -> None:
        """Close the tokens, and use the black box no more. Idempotent."""
        fd, self._tokens, self._box = self._tokens, None, None
        if fd is not None:
            native.close(fd)
