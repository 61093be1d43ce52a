"""Take the sample shop out of a clone, or out of a merge of what the template has changed.

    make remove-shop

What is the shop's is in `FOLDERS_AND_FILES`, and in `MIXED` between two marks; all else is the
template's, or yours. Nothing is committed: git shows what has changed, and can bring it back.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from include.errors import LocalError, status_of
from include.settings import ROOT
from scripts.revision import git

SOURCE = "include/sources/shop.yml"
FOLDERS_AND_FILES = (
    "dags/elt_hourly.py",
    "dags/elt_late.py",
    "dags/elt_standard.py",
    "dbt/models/shop",
    "dbt/seeds/shop",
    "dbt/snapshots/shop",
    "dbt/tests/shop",
    SOURCE,
    "tests/dags/test_shop_dags.py",
    "tests/shop",
)
MIXED = ("airflow_settings.yaml", "dbt/dbt_project.yml", "dbt/schedules.yml", "dbt/selectors.yml")
MARKED = re.compile(
    r"\n*^ *# The sample shop, .*?^ *# The sample shop ends\.$", re.DOTALL | re.MULTILINE
)
# What dbt reads as no list at all, where the sample's selectors were the only ones.
BARE = re.compile(r"^selectors:\s*\Z", re.MULTILINE)
EDGES = "dags/edges"
# Where both sides have changed one of these, a merge leaves it as you have it.
YOURS = (*MIXED, "README.md")


class Clone:
    """A clone of the template.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def remove_shop(self) -> list[str]:
        """Take away what is the shop's, in work tree and index.

        Returns:
            The files that are gone or were changed, sorted.

        Raises:
            LocalError: There is no shop, or what is not committed would be lost.
        """
        if self._succeeds("rev-parse", "--quiet", "--verify", "MERGE_HEAD"):
            own = self._of_the_shop("ls-tree", "-r", "--name-only", "HEAD")
            if SOURCE in own:
                raise LocalError("a merge is going on: commit it, then make remove-shop")
            self._keep_ours(own)
            return self._without(own)
        if self._git("status", "--porcelain", "--untracked-files=no"):
            raise LocalError("changes are not committed: commit or stash them, then run it again")
        if not (gone := self._without(set())):
            raise LocalError("the sample shop is not here any more")
        return gone

    def unmerged(self) -> list[str]:
        """What git could not merge, sorted."""
        return sorted(set(self._git("diff", "--name-only", "--diff-filter=U").splitlines()))

    def _without(self, own: set[str]) -> list[str]:
        gone = self._of_the_shop("ls-files") - own
        if gone:
            self._git("rm", "-q", "-f", "--", *gone)
        return sorted([*gone, *(name for name in MIXED if self._cut(name))])

    def _of_the_shop(self, *listing: str) -> set[str]:
        return set(self._git(*listing, "--", *FOLDERS_AND_FILES).splitlines())

    def _keep_ours(self, own: set[str]) -> None:
        """What is yours, or is made anew by `make edges`, stays as it was before the merge."""
        for name in self.unmerged():
            if name in own or name in YOURS or name.startswith(f"{EDGES}/"):
                kept = self._succeeds("checkout", "--ours", "--", name)
                self._git(*(["add"] if kept else ["rm", "-q", "-f"]), "--", name)

    def _cut(self, name: str) -> bool:
        """Take what is between the marks out of a file; returns whether there was any."""
        path = self.root / name
        text = path.read_text() if path.exists() else ""
        left = BARE.sub("selectors: []\n", MARKED.sub("", text))
        if left != text:
            path.write_text(left)
            self._git("add", "--", name)
        return left != text

    def _succeeds(self, *arguments: str) -> bool:
        try:
            self._git(*arguments)
        except LocalError:
            return False
        return True

    def _git(self, *arguments: str) -> str:
        return git(self.root, *arguments).decode()


def main() -> None:
    """Take the shop out of this clone, and say what that was.

    Raises:
        LocalError: It is not to be done, or files are still to be merged by hand.
    """
    clone = Clone(ROOT)
    gone = clone.remove_shop()
    sys.stdout.write("".join(f"{name}\n" for name in gone))
    if left := clone.unmerged():
        raise LocalError(f"still to be merged by you: {', '.join(left)}; git add them, then again")
    sys.stdout.write(f"{len(gone)} files removed or changed; git diff --cached shows them\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
