"""A model behind HTTP, through the command line."""

import json
from functools import partial
from pathlib import Path

import pytest

from support.command_line import CommandLine
from support.embedding_server import Answer, Call, embedding_server, refusing, well
from support.models import vector_of

KEY = "sk-very-secret-0123456789"


def test_a_model_of_the_settings_file_embeds_and_what_goes_wrong_is_one_line_without_the_key(
    embedq: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    embedq.environment |= {"EMBEDQ_SETTINGS": str(file), "MY_KEY": KEY}
    with embedding_server() as server:
        options = f'kind = "http"\nmodel = "m"\nbase_url = "{server.url}"\nkey_env = "MY_KEY"\nquery_prefix = "q: "\n'
        file.write_text(f'[models.remote]\n{options}aliases = ["r"]\n')
        assert json.loads(embedq("embed", "-c", "a", "-m", "r").out) == pytest.approx(vector_of("a"))
        rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(100))
        assert "100 embedded" in embedq("ingest", "pets", "-", "-m", "remote", input=rows).out
        assert sorted(len(call.texts) for call in server.calls[1:]) == [4, 32, 32, 32]
        embedq("similar", "pets", "-c", "text 7", "-n", "1")
        assert server.calls[-1].texts == ["q: text 7"]
        wrong: list[tuple[Answer, str]] = [
            (refusing(401, f"Incorrect API key provided: {KEY}"), "it refuses the key in MY_KEY: check it"),
            (refusing(404, "no such model"), "check the address, and the name of the model, 'm'"),
            (refusing(429, f"slow down, {KEY}"), "HTTP 429: slow down, …"),
        ]
        for answer, message in wrong:
            server.behave = partial(_answering, answer)
            result = embedq("similar", "pets", "-c", "text 7", exit_code=1)
            assert (result.out, result.err.count("\n")) == ("", 1)
            assert message in result.err
            assert KEY not in result.err
        server.behave = well
    assert "can't be reached" in embedq("embed", "-c", "a", "-m", "r", exit_code=1).err
    # Nothing is queued that could not go on in this process.
    nothing = {"MY_KEY": ""}
    result = embedq("ingest", "fresh", "-", "-m", "remote", input=rows, environment=nothing, exit_code=1)
    assert (result.out, result.err) == ("", "embedq: the key is missing: set the environment variable MY_KEY\n")
    words = embedq("collections", "show", "pets").out.split("\n")
    assert words[1:4] == [
        "model          remote",
        'configuration  model = "m"',
        '               query_prefix = "q: "',
    ]
    assert "has no address" in embedq("embed", "-c", "a", "-m", "http:x", exit_code=2).err


def _answering(answer: Answer, _: Call) -> Answer:
    return answer
