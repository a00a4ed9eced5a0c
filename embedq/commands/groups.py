"""Groups of commands that list things when they are not told what to do."""

from typing import Any

from typer.core import TyperGroup


class ListByDefault(TyperGroup):
    """`embedq runs` is `embedq runs list`, and so are their options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's context, which Typer vendors
        """Parse; options without a command are those of `list`."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)
