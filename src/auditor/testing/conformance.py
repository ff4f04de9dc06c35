"""The conformance kit, a pytest plugin: subclass ``ProbeConformance`` and get the tests that every probe must
pass.

>>> class TestMine(ProbeConformance):
...     plugin = Mine
...     options = {"scale": 0.1}

Everything runs on the embedded micro world, on the CPU (and on a GPU where there is one), without a network.
Fixtures for tests of your own: ``micro`` and ``fake`` (see :class:`Kit`).
"""

from __future__ import annotations

import gc
import socket
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from auditor._files.documents import sentence_of
from auditor.plugin import contracts
from auditor.plugin._loader import problem_of
from auditor.testing.fake import fake_checkpoint
from auditor.testing.kit import Kit
from auditor.testing.strays import state, strays

_MEGABYTE = 2**20

SEED = 7


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The micro world (:class:`Kit`)."""
    return Kit(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The same (:class:`Kit`) of a checkpoint without trained weights: quick, and it draws noise."""
    folder = tmp_path_factory.mktemp("fake")
    return Kit(folder, str(fake_checkpoint(folder / "checkpoint")))


class Conformance:
    """What holds for plugins of every kind."""

    plugin: ClassVar[type[contracts.Plugin]]
    options: ClassVar[dict[str, Any]] = {}
    kind: ClassVar[str]
    _told: ClassVar[str | None]
    _used: ClassVar[tuple[Any, Any]]

    @pytest.fixture(autouse=True)
    def _usable(self, request: pytest.FixtureRequest) -> None:
        """What keeps the plugin from being used at all is said once: the first test of the class fails with
        it, the others are skipped."""
        own = type(self)
        if (told := vars(own).get("_told")) is not None:
            pytest.skip(f"not run before this is mended: {told}")
        if "_used" in vars(own):
            return
        own._told = f"{own.__name__}: its plugin raises when it is used"
        problem = self._problem()
        if problem is None:
            problem = self._use(request.getfixturevalue("micro"))
        own._told = problem
        if problem is not None:
            pytest.fail(problem, pytrace=False)

    def _problem(self) -> str | None:
        """What is missing in the test's class or the plugin's, in a sentence with its mend."""
        own, plugin = type(self).__name__, getattr(type(self), "plugin", None)
        if plugin is None:
            return f"{own} has no plugin: write 'plugin = YourClass' in it."
        if (problem := problem_of(self.kind, plugin)) is not None:
            return problem
        try:
            made = self.make()
        except ValidationError as error:
            found = sentence_of(error.errors()[0], plugin.Options)
            return (
                f"The options of {plugin.__name__} cannot be {self.options!r}: {found} Write 'options = "
                f"{{…}}' in {own}, as a policy would give them, or give them defaults in "
                f"{plugin.Options.__name__}."
            )
        if not hasattr(made, "options"):
            return f"{plugin.__name__}.__init__ does not call super().__init__(options)."
        return None

    def _use(self, micro: Kit) -> str | None:
        """Use one plugin twice, and say what it leaves in the process; what it did is kept."""
        plugin = self.make()
        first = self.exercise(micro, plugin)  # what is computed once may be
        before = state()
        second = self.exercise(micro, plugin)
        type(self)._used = first, second
        found = strays(before, state())
        return f"{self.plugin.__name__}: {'; '.join(found)}." if found else None

    def make(self) -> Any:
        """The plugin with the options of this class."""
        return self.plugin(self.plugin.Options.model_validate(self.options))

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """Use the plugin once, and return something that is equal where it did the same."""
        raise NotImplementedError

    def test_metadata(self) -> None:
        """Name, summary and methods are what the loader asks of a plugin of its kind."""
        assert problem_of(self.kind, self.plugin) is None
        assert self.plugin.__doc__
        assert "\n" not in self.plugin.summary

    def test_every_option_is_documented(self) -> None:
        """A string stands under every option."""
        undocumented = [
            name for name, field in self.plugin.Options.model_fields.items() if not field.description
        ]
        assert not undocumented

    def test_an_unknown_option_is_refused(self) -> None:
        """A misspelt option is an error, not ignored."""
        with pytest.raises(ValueError, match="no_such_option"):
            self.plugin.Options.model_validate(self.options | {"no_such_option": 1})

    def test_options_survive_json(self) -> None:
        """Options are the same after they were written to a policy and read back."""
        options = self.plugin.Options.model_validate(self.options)
        assert self.plugin.Options.model_validate_json(options.model_dump_json()) == options

    def test_the_same_twice_by_one_and_by_two_instances(self, micro: Kit) -> None:
        """It keeps no state between calls, and two instances do the same."""
        first, second = self._used
        assert second == first, "the plugin keeps a state from one call to the next"
        assert self.exercise(micro, self.make()) == first, "two plugins with the same options differ"

    def test_it_leaves_the_global_state_alone(self, micro: Kit) -> None:
        """Random generators, gradient mode, default type and threads are as before."""
        before = state()
        self.exercise(micro, self.make())
        assert strays(before, state()) == []

    def test_it_prints_nothing(self, micro: Kit, capsys: pytest.CaptureFixture[str]) -> None:
        """Standard output belongs to the command that runs it."""
        self.exercise(micro, self.make())
        assert capsys.readouterr().out == "", "standard output belongs to the command that runs the plugin"

    def test_it_needs_no_network(self, micro: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        """It works where no connection can be made."""

        def refuse(*_: object) -> None:
            raise OSError("no network in the conformance kit")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        self.exercise(micro, self.make())

    def test_it_gives_memory_back(self, micro: Kit) -> None:
        """Tensors do not pile up from call to call."""
        plugin = self.make()
        self.exercise(micro, plugin)
        before = _tensor_bytes()
        for _ in range(3):
            self.exercise(micro, plugin)
        assert _tensor_bytes() - before < _MEGABYTE, "tensors pile up from call to call"


def _tensor_bytes() -> int:
    import torch

    gc.collect()
    tensors = {id(found): found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)}
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


def devices() -> list[str]:
    """The CPU, and a GPU where there is one."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
