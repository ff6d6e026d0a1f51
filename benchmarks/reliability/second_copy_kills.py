"""SIGKILL of a stage at random moments, with a second copy of the same command started meanwhile.

The second copy is refused while the first one works, or takes over after it is killed. Every other time only the driver
is killed, so that its workers may still be working when the second copy takes over.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.reliability.commands import Command, kill, kill_alone, kill_with_family, start, started_in, wait_until
from benchmarks.reliability.fault import Outcome, Scene
from mapl_ray.errors import UserError
from mapl_ray.lease import lease_path

END_SECONDS = 600.0  # a copy must take the lease, be refused, or end within this time
TRIES = 5  # maximum tries per kill, because some copies end before they are killed
REFUSED = "another run of {} is at work there"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of `mapl`, on a few real pairs and a tiny model."""

    lease: str
    begin: Callable[[Scene, Path], None]  # writes the stage's input to a new `output_dir`
    words: Callable[[Scene, Path], list[str]]
    done: Callable[[Path], bool]  # whether the stage is finished in the run's folder
    compare: Callable[[Outcome, Path, Path], None]  # compares the undisturbed run's folder with another
    result: str  # a file below the run's folder; the comparison must find a change in it

    def start(self, scene: Scene, output: Path, name: str, module: str = "mapl_ray.cli") -> Command:
        """Start a copy of the command with its own log."""
        return start(self.words(scene, output), output, module=module, log_name=f"log-{name}")

    def owner(self, output: Path) -> int | None:
        """The process id of the lease's owner."""
        try:
            return int(json.loads(lease_path(output / "run", self.lease).read_text(encoding="utf-8"))["process"])
        except (OSError, ValueError):
            return None

    def holder(self, output: Path, commands: Sequence[Command]) -> Command:
        """Wait for the command that holds the lease. Raises `RuntimeError` if all end without taking it."""
        found: list[Command] = []

        def held() -> bool:
            owner = self.owner(output)
            found.extend(one for one in commands if one.process.pid == owner)
            return bool(found) or all(one.process.poll() is not None for one in commands)

        wait_until(held, None, END_SECONDS)
        if not found:
            raise RuntimeError("no copy took the lease:\n" + "\n".join(one.text()[-2000:] for one in commands))
        return found[0]


@dataclass(slots=True)
class _Race:
    """Copies of one command that are killed repeatedly; a new folder is used when the work in the last one is done."""

    stage: Stage
    scene: Scene
    there: Path  # the undisturbed run's folder
    work_seconds: float  # seconds of the undisturbed run
    outcome: Outcome
    output: Path
    running: Command | None = None  # the copy that holds the lease, or the only one that can take it
    killed: float | None = None  # time of the last kill, until a copy holds the lease again
    refused: int = 0
    taken_over: int = 0
    whole: int = 0
    numbers: count[int] = field(default_factory=count)

    def copy(self) -> Command:
        return self.stage.start(self.scene, self.output, str(next(self.numbers)))

    def two_copies(self, together: bool) -> tuple[Command, Command]:
        """The one that holds the lease, and a second one, started with it or once it holds the lease."""
        if self.running is not None:
            return self.held_by([self.running]), self.copy()
        if not together:
            return self.held_by([self.copy()]), self.copy()
        two = [self.copy(), self.copy()]
        holder = self.held_by(two)
        return holder, next(one for one in two if one is not holder)

    def held_by(self, commands: Sequence[Command]) -> Command:
        holder = self.stage.holder(self.output, commands)
        if self.killed is not None:
            self.outcome.seconds.append(time.monotonic() - self.killed)
            self.killed = None
        return holder

    def kill_one(self, number: int) -> bool:
        """Kill the working copy at a random moment; False if it had already finished."""
        holder, other = self.two_copies(together=number % 2 == 0)
        moment = time.monotonic() + self.scene.rng.uniform(0.0, self.work_seconds)
        wait_until(lambda: time.monotonic() >= moment or self.stage.done(self.output / "run"), holder, END_SECONDS)
        if holder.process.poll() is not None or self.stage.done(self.output / "run"):
            self.running = None
            self.end(holder)
            self.check_refusal(other, after_the_end=True)
            self.next_folder()
            return False
        (kill_with_family if number % 2 else kill_alone)(holder)
        self.killed = time.monotonic()
        if wait_until(lambda: self.stage.owner(self.output) == other.process.pid, other, END_SECONDS):
            self.taken_over += 1
            self.running = other
            self.held_by([other])
        else:
            self.refused += 1
            self.running = None
            self.check_refusal(other)
        return True

    def check_refusal(self, other: Command, after_the_end: bool = False) -> None:
        """Check that a copy that starts after the first one has finished finds nothing to do."""
        code, message = other.finish(END_SECONDS), other.message()
        refused = code == 2 and REFUSED.format(self.stage.lease) in message
        sentence = "a second copy ends with exit code 2 and a sentence that names the first, while that works"
        self.outcome.check(sentence, refused or (after_the_end and code == 0))
        if refused:
            self.outcome.message = message.replace(str(self.output), "runs").replace(str(self.scene.shared), "data")

    def end(self, command: Command) -> None:
        self.outcome.check("a copy that is not killed ends with exit code 0", command.finish(END_SECONDS) == 0)
        self.stage.compare(self.outcome, self.there, self.output / "run")
        self.outcome.check("no lease is left", self.stage.owner(self.output) is None)
        self.whole += 1

    def next_folder(self) -> None:
        self.output = self.scene.folder / f"lap-{self.whole}"
        self.stage.begin(self.scene, self.output)


def second_copy(stage: Stage, scene: Scene) -> Outcome:
    """`rounds` kills over as many runs as needed; seconds are from a kill until a copy holds the lease again."""
    outcome = Outcome()
    there, work_seconds = _undisturbed(stage, scene)
    _control_of_comparison(outcome, stage, there)
    _control_of_leases(outcome, stage, scene)
    race = _Race(stage, scene, there, work_seconds, outcome, scene.folder / "lap-0")
    stage.begin(scene, race.output)
    kills = 0
    for _ in range(scene.rounds * TRIES):
        if kills == scene.rounds:
            break
        kills += race.kill_one(kills)
    outcome.check("killed as often as wanted", kills == scene.rounds)
    race.end(race.held_by([race.running or race.copy()]))
    for member in started_in(scene.folder):
        kill(member)
    outcome.lost = (
        f"nothing is mixed: of {kills} kills {race.refused} were after the second copy had been refused, "
        f"{race.taken_over} before it took over; {race.whole} runs came to their end"
    )
    return outcome


def _undisturbed(stage: Stage, scene: Scene) -> tuple[Path, float]:
    """The folder of an undisturbed run, and its seconds from the lease to the end of the stage."""
    output = scene.folder / "undisturbed"
    stage.begin(scene, output)
    command = stage.holder(output, [stage.start(scene, output, "0")])
    began = time.monotonic()
    wait_until(lambda: stage.done(output / "run"), command, END_SECONDS)
    seconds = time.monotonic() - began
    if (code := command.finish(END_SECONDS)) != 0:
        raise RuntimeError(f"the undisturbed run: exit code {code}\n{command.text()[-3000:]}")
    return output / "run", seconds


def _control_of_comparison(outcome: Outcome, stage: Stage, there: Path) -> None:
    """A control: one bit or digit of the result is changed in a copy, and the comparison must find it."""
    changed, seen = there.parent / "changed", Outcome()
    shutil.copytree(there, changed)
    path = changed / stage.result
    data = bytearray(path.read_bytes())
    # The last digit of a text, so that it remains valid JSON; the last byte of weights.
    at = max(place for place, byte in enumerate(data) if chr(byte).isdigit()) if path.suffix == ".json" else -1
    data[at] ^= 1
    path.write_bytes(data)
    try:
        stage.compare(seen, there, changed)
        found = not seen.holds
    except UserError:  # the reader rejects it
        found = True
    outcome.check("control: a changed result is found by the comparison", found)
    shutil.rmtree(changed)


def _control_of_leases(outcome: Outcome, stage: Stage, scene: Scene) -> None:
    """A control: with leases switched off, two copies must work at the same time."""
    output = scene.folder / "unleased"
    stage.begin(scene, output)
    two = [stage.start(scene, output, str(number), "benchmarks.reliability.unleased") for number in range(2)]

    def ended() -> bool:
        return any(one.process.poll() is not None for one in two)

    def at_work() -> bool:
        return all("\n== " in f"\n{one.text()}" for one in two)

    wait_until(lambda: ended() or at_work(), None, END_SECONDS)
    outcome.check("control: with leases switched off, two copies are seen at work", not ended() and at_work())
    for one in two:
        kill_with_family(one)
