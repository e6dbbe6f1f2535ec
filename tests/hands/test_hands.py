"""Work that fans out: kept, taken up again, done where a hand is lost."""

import os
import signal

import pytest

from on_ray import REAL
from stalewise.errors import InputError
from stalewise.hands import Call, Hands, RayHands, identity, local_ray
from stalewise.study import make_study


def counted(path, number):
    """Twice the number; each call leaves a mark."""
    with path.open("a") as file:
        file.write("x")
    return {"twice": 2 * number}


def calls(path):
    """Three calls of `counted`."""
    return [Call(str(i), counted, (path, i), {"number": i}) for i in range(3)]


def test_answers_come_in_order_and_are_kept(tmp_path):
    """A second time nothing is done; what is cut short is done again; without a key nothing is kept."""
    marks, folder = tmp_path / "marks", tmp_path / "kept"
    told = []
    expected = [{"twice": 0}, {"twice": 2}, {"twice": 4}]
    assert Hands(folder).each(calls(marks), told.append) == expected
    assert told == [1, 2, 3] and marks.read_text() == "xxx"
    assert Hands(folder).each(calls(marks)) == expected and marks.read_text() == "xxx"
    first = sorted(folder.iterdir())[0]
    first.write_text(first.read_text()[:-9])
    assert Hands(folder).each(calls(marks)) == expected and marks.read_text() == "xxxx"
    assert Hands().each(calls(marks)) == expected and marks.read_text() == "x" * 7
    assert Hands(folder).each([Call("free", counted, (marks, 5))]) == [{"twice": 10}]
    assert len(list(folder.iterdir())) == 3


def test_an_answer_is_only_that_of_its_key(tmp_path):
    """A file of another key, put in the place of one, is not believed."""
    marks = tmp_path / "marks"
    Hands(tmp_path / "kept").each(calls(marks))
    one, other, _ = sorted((tmp_path / "kept").iterdir())
    one.write_text(other.read_text())
    assert Hands(tmp_path / "kept").each(calls(marks))[1] == {"twice": 2}
    assert marks.read_text() == "xxxx"


def test_an_identity_holds_what_files_hold(tmp_path):
    """A trace or landscape that changes is another study; a schedule too; the place of the folder is not."""
    trace = tmp_path / "log.csv"
    trace.write_text("worker,start,end\na,0,1\na,1,2\na,2,4\n")
    content = {
        "workload": {"kind": "digits-mlp"},
        "cluster": {"workers": 2, "compute": 'trace("log.csv")'},
        "target": {"loss": 0.1},
    }
    study = make_study(content, folder=tmp_path)
    before = identity(study)
    assert before == identity(make_study(content, folder=tmp_path))
    assert before != identity(study.with_schedule(batch_size=8))
    trace.write_text(trace.read_text() + "a,4,5\n")
    assert before != identity(study)


@pytest.mark.parametrize("mark", [pytest.param(0, marks=REAL)])
def test_a_lost_hand_is_begun_again(tmp_path, mark):
    """One call kills its process the first time; all answers come, each once; errors come through as they are."""

    def fragile(path, number):
        if number == 1 and not path.exists():
            path.write_text("gone")
            os.kill(os.getpid(), signal.SIGKILL)
        return [number, os.getpid()]

    def wrong():
        raise InputError("such as it is")

    with local_ray(2) as ray:
        hands = RayHands(ray, tmp_path / "kept")
        work = [Call(str(i), fragile, (tmp_path / "mark", i), {"number": i}) for i in range(4)]
        found = hands.each(work)
        assert [number for number, _ in found] == [0, 1, 2, 3]
        assert (tmp_path / "mark").exists() and os.getpid() not in {pid for _, pid in found}
        assert len({pid for _, pid in found}) > 1
        same = hands.each([Call("1", fragile, (tmp_path / "mark", 7), None) for _ in range(2)])
        assert same[0][1] == same[1][1]
        with pytest.raises(InputError, match="such as it is"):
            hands.each([Call("w", wrong, ())])
    assert Hands(tmp_path / "kept").each(work) == found
