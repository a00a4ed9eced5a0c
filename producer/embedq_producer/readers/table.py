"""Sources with columns: the shape that all their rows share, decided once."""

from collections.abc import Sequence

from embedq_core.errors import SourceError, UsageError
from embedq_core.text import shown, suggestion
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import Shape, shape_of


def table_shape(names: Sequence[str], where: str, options: RowOptions) -> Shape:
    """The shape of a table with these columns.

    Raises UsageError where a column of `options.metadata` isn't among them, and SourceError where they can
    make no item or where two columns that are used by name bear the same one.
    """
    for column in options.metadata:
        if column not in names:
            known = ", ".join(shown(name) for name in names)
            raise UsageError(
                f"{where} has no column {shown(column)!r} for the metadata.{suggestion(column, names)} "
                f"Its columns are: {known}"
            )
    try:
        shape = shape_of(names, options)
    except BadRow as bad:
        raise SourceError(f"{where} {bad.problem}. Its columns are: {shown(', '.join(names))}") from bad
    used = {name for name, _ in shape.extra}
    if shape.names[shape.id] == "id" and shape.names[shape.content[0]] == "content":
        used |= {"id", "content", "metadata"}
    for name in sorted(used):
        if names.count(name) > 1:
            raise SourceError(f"{where} has {names.count(name)} columns named {shown(name)!r}; rename one")
    return shape
