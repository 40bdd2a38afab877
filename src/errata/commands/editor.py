"""The verb ``edits llm``: a language model corrects responses, and what it wrote is checked before it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes as Flat

from errata.client import DryRun, Engine
from errata.commands.client import ClientFlags, JudgeFlags
from errata.commands.shared import RESUMES, Source, check_not_itself, console, set_aside
from errata.data import iter_corrections, iter_demonstrations, recognise_file, write_rows
from errata.data.fields import take_ids
from errata.data.rows import write_lines
from errata.edits import Draft, LLMEditorConfig, SetAside, edit_drafts
from errata.runs import write_json
from errata.winrate import BetterEdits, ChatJudge, kinship

__all__ = ["EditsLLM"]


@dataclass(frozen=True, kw_only=True)
class EditsLLM:
    """Let a language model correct responses: as few words as possible, checked, diffed here and never by the model.

    What cannot be used is asked for once more, and then set aside with the reason in <out>.set-aside.jsonl. Stopped at
    any moment, rerun the same command to resume; no finished answer is paid for again.
    """

    stopped = f"no answer is paid for twice; {RESUMES}"

    data: Path
    """Rows with prompt and response (and response_ids, if sampled); with --side rejected pairs in any format
    of `errata edits import`."""
    out: Path
    """Corrections to write: .jsonl, .jsonl.gz or .parquet. The counts go to <out>.report.json."""
    side: Literal["response", "rejected"] = "response"
    """What to correct: the response, or the worse text of a pair, whose better one is kept in the field `output`."""
    reference: str | None = None
    """The field with a good answer that the model may take facts from (FIGA's y); of pairs, `chosen` is the better
    text."""
    guideline: Path | None = None
    """A text file: what your team wants and does not want, for the model."""
    source: Flat[Source] = Source()
    settings: Flat[LLMEditorConfig] = LLMEditorConfig()
    judging: Flat[JudgeFlags] = JudgeFlags()
    client: Flat[ClientFlags] = ClientFlags()

    def run(self) -> None:
        check_not_itself(self.out, self.data, self.guideline)
        chat = self.client.open()
        aside = self.out.with_name(f"{self.out.name}.set-aside.jsonl")
        guideline = "" if self.guideline is None else self.guideline.read_text(encoding="utf-8")
        judge = self.judging.judge
        better = None if judge is None else BetterEdits(self._judge(judge, chat, guideline))
        drafts = list(self._drafts())
        try:
            found = edit_drafts(chat, drafts, self.settings, guideline=guideline, objections=better)
        except DryRun:
            if better is not None:
                print("\nThe judge, if every response is edited (the edits are not known yet):")
                better([(draft.prompt, draft.response, f"{draft.response} (edited)") for draft in drafts])
            raise
        write_lines(aside, map(_aside_fields, found.set_aside))
        judged = {} if better is None else {"judge": better.as_dict()}
        write_json(self.out.with_name(f"{self.out.name}.report.json"), {**found.report.as_dict(), **judged})
        console.print(str(found.report), highlight=False, markup=False, soft_wrap=True)
        if better is not None:
            console.print(str(better), highlight=False, markup=False, soft_wrap=True)
        if not found.corrections:
            first = found.set_aside[0]
            raise ValueError(
                f"no response could be corrected, so {self.out} was not written; the first, {first.draft.id!r}, is "
                f"{first.reason}: {first.why}; all are in {aside}"
            )
        write_rows(self.out, found.corrections)
        what = f"; what was set aside, and why: {aside.name}" if found.set_aside else ""
        console.print(f"→ {self.out}{what}", highlight=False, markup=False, soft_wrap=True)

    def _judge(self, judge: str, editor: Engine, guideline: str) -> ChatJudge:
        chat = self.judging.open(self.client, shares=editor)
        if kin := kinship([chat.server.model], [editor.server.model]):
            console.print(f"warning: {kin}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        return ChatJudge(chat, name=judge, guideline=guideline)

    def _drafts(self) -> Iterator[Draft]:
        if self.side == "response":
            for row in iter_demonstrations(self.data, set_aside=set_aside(self.out), **self.source.how):
                if "rejected" in row.extra and "chosen" not in row.extra:
                    raise ValueError(f"row {row.id!r} is a pair; say --side rejected to correct its worse text")
                extra = dict(row.extra)
                ids = take_ids(extra, ("response_ids",))
                yield Draft(
                    id=row.id,
                    prompt=row.prompt,
                    response=row.response,
                    reference=self._reference(row.id, extra),
                    response_ids=ids,
                    extra=extra,
                )
            return
        how = self.source.how
        if how["form"] is None:
            how["form"], why = recognise_file(self.data, **how)
            console.print(why, highlight=False, markup=False, soft_wrap=True)
        for pair in iter_corrections(self.data, set_aside=set_aside(self.out), **how):
            yield Draft(
                id=pair.id,
                prompt=pair.prompt,
                response=pair.original,
                reference=self._reference(pair.id, {**pair.extra, "chosen": pair.edited}),
                response_ids=pair.original_ids,
                extra={"output": pair.edited, **pair.extra},
            )

    def _reference(self, id: str, fields: Any) -> str | None:
        if self.reference is None:
            return None
        found = fields.get(self.reference)
        if not isinstance(found, str):
            raise ValueError(f"row {id!r}: field {self.reference!r} holds no text; add it, or leave --reference out")
        return found


def _aside_fields(each: SetAside) -> dict[str, Any]:
    draft = each.draft
    fields: dict[str, Any] = {"id": draft.id, "set_aside": each.reason.value, "why": each.why, "answer": each.answer}
    fields |= {"prompt": draft.prompt, "response": draft.response}
    fields |= {} if draft.reference is None else {"reference": draft.reference}
    fields |= {} if draft.response_ids is None else {"response_ids": list(draft.response_ids)}
    # Fields again: a row that was set aside before has the old reasons among its further fields.
    return {**fields, **draft.extra, **fields}
