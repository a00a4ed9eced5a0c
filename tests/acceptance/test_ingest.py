from support.command_line import CommandLine


def test_a_file_goes_in_and_answers_come_out(embedq: CommandLine) -> None:
    rows = embedq.directory / "rows.csv"
    rows.write_text("id,content\nhound,my happy hound\ncat,my dissatisfied cat\n")
    embedq("ingest", "pets", rows, "-m", "hashing")
    result = embedq("similar", "pets", "-c", "happy hound", "-n", "1")
    assert '"id": "hound"' in result.out
