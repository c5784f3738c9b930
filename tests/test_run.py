"""Programs are started clean, bounded and mortal."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from airgap.machine.run import ERROR_TAIL, RunError, Runner, printable

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def test_it_returns_what_the_program_said_on_both_pipes():
    result = Runner()(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (result.code, result.out, result.err) == (0, b"out\n", b"err\n")


def test_the_program_reads_the_input_it_is_given_even_a_big_one():
    data = b"x" * 3_000_000
    result = Runner()(python("import sys; print(len(sys.stdin.buffer.read()))"), input=data)
    assert result.text == "3000000"


def test_a_program_that_does_not_read_its_input_is_no_failure():
    assert Runner()(["true"], input=b"x" * 3_000_000).code == 0


def test_no_shell_reads_the_words():
    assert Runner()(["printf", "%s", "$HOME; `id` && *"]).out == b"$HOME; `id` && *"


def test_the_callers_loader_and_python_variables_do_not_reach_it():
    runner = Runner(environ={"LD_PRELOAD": "/x.so", "PYTHONPATH": "/x", "DOCKER_HOST": "tcp://x", "HOME": "/root", "PATH": "/evil"})
    seen = dict(line.partition("=")[::2] for line in runner(["env"]).text.splitlines())
    assert not {"LD_PRELOAD", "PYTHONPATH", "DOCKER_HOST"} & set(seen)
    assert seen["LC_ALL"] == "C"
    assert "/usr/local/bin" in seen["PATH"].split(":")
    assert "/opt/kube/bin" in seen["PATH"].split(":")


def test_inherit_passes_the_callers_environment_on():
    runner = Runner(environ={"PIP_INDEX_URL": "http://mirror", "PATH": os.environ["PATH"]})
    assert b"PIP_INDEX_URL=http://mirror" in runner(["env"], inherit=True).out


def test_what_is_asked_for_comes_on_top_of_the_environment():
    assert b"BUILDX_DEFAULT_POLICY=0" in Runner()(["env"], env={"BUILDX_DEFAULT_POLICY": "0"}).out


def test_a_failure_names_the_words_the_code_and_the_last_lines():
    with pytest.raises(RunError) as caught:
        Runner()(python("import sys; print('\\x1b[31mred', file=sys.stderr); sys.exit(3)"))
    assert "exit code 3" in caught.value.message
    assert "?[31mred" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.result is not None
    assert caught.value.result.code == 3


def test_without_check_the_code_is_the_callers_business():
    assert Runner()(["false"], check=False).code == 1


def test_a_signal_is_named():
    with pytest.raises(RunError, match="killed by signal 15"):
        Runner()(python("import os; os.kill(os.getpid(), 15)"))


def test_a_program_that_is_not_there_is_an_error_of_ours():
    with pytest.raises(RunError, match="No such file") as caught:
        Runner()(["/nowhere/at-all"])
    assert caught.value.hint


def test_a_word_with_a_zero_byte_is_an_error_of_ours():
    with pytest.raises(RunError):
        Runner()(["true", "a\0b"])


def test_time_over_kills_the_whole_group(tmp_path: Path):
    note = tmp_path / "pid"
    code = f"import subprocess,time; p=subprocess.Popen(['sleep','60']); open({str(note)!r},'w').write(str(p.pid)); time.sleep(60)"
    begin = time.monotonic()
    with pytest.raises(RunError, match="did not end within 2 seconds"):
        Runner()(python(code), timeout=2)
    assert time.monotonic() - begin < 20
    assert not alive(int(note.read_text()))


def test_a_pipe_held_open_by_something_left_behind_does_not_hold_us():
    begin = time.monotonic()
    assert Runner()(["sh", "-c", "sleep 60 & echo done"], timeout=30).text == "done"
    assert time.monotonic() - begin < 20


def test_ctrl_c_kills_what_runs_and_goes_on(tmp_path: Path):
    note = tmp_path / "pid"
    code = f"import os,time; open({str(note)!r},'w').write(str(os.getpid())); time.sleep(60)"
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        Runner()(python(code), timeout=30)
    assert not alive(int(note.read_text()))


def test_too_much_output_is_refused_and_not_kept():
    with pytest.raises(RunError, match="said more than"):
        Runner()(python("import sys\nfor _ in range(400): sys.stdout.write('x'*65536)"))


def test_only_the_end_of_standard_error_is_kept():
    result = Runner()(python("import sys; sys.stderr.write('a'*1000000 + 'end')"))
    assert len(result.err) == ERROR_TAIL
    assert result.err.endswith(b"end")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_another_user_it_has_that_users_rights_home_and_groups():
    result = Runner()(["sh", "-c", 'id -un; echo "$HOME"; pwd; id -G'], user="nobody")
    name, home, folder, groups = result.text.splitlines()
    assert (name, folder) == ("nobody", "/")
    assert home
    assert "0" not in groups.split()


def test_a_user_that_does_not_exist_is_an_error_of_ours():
    with pytest.raises(RunError, match="does not exist"):
        Runner()(["true"], user="no-such-user-here")


def test_foreign_words_are_shown_without_control_characters():
    assert printable("a\x1b]0;title\x07b\tc\r\nd\u202ee") == "a?]0;title?b c\nd?e"


def alive(pid: int) -> bool:
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True
