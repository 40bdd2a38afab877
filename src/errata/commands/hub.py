"""A finished folder is uploaded to the Hugging Face Hub, where that was asked for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from errata.commands.shared import console

__all__ = ["HubFlags"]


@dataclass(frozen=True, kw_only=True)
class HubFlags:
    """Whether the result goes to the Hugging Face Hub."""

    push_to_hub: str | None = None
    """owner/name on the Hugging Face Hub: --out is uploaded there when it is finished, private unless --hub-public. The
    token is that of HF_TOKEN or `hf auth login`; it is checked that there is one before training."""
    hub_public: bool = False
    """Let everybody see what --push-to-hub uploads."""

    def check(self) -> None:
        """Refuse what could not be uploaded after hours of training.

        Raises:
            ValueError: the name is none, there is no token, or the Hub is not to be asked.
        """
        if self.push_to_hub is None:
            if self.hub_public:
                raise ValueError("--hub-public is of --push-to-hub owner/name; give that, too")
            return
        from huggingface_hub import constants, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(self.push_to_hub)
        except HFValidationError as error:
            raise ValueError(f"--push-to-hub {self.push_to_hub} is no name on the Hub: {error}") from error
        if "/" not in self.push_to_hub:
            raise ValueError(f"--push-to-hub {self.push_to_hub} names no owner; give owner/{self.push_to_hub}")
        if constants.HF_HUB_OFFLINE:
            raise ValueError("--push-to-hub: HF_HUB_OFFLINE is set; unset it, or leave --push-to-hub out")
        if get_token() is None:
            raise ValueError(
                "--push-to-hub needs a token that may write: set HF_TOKEN or run `hf auth login`, or leave it out and "
                f"push later with `{self._command('OUT')}`"
            )

    def push(self, out: Path) -> None:
        """Upload a finished folder; of several processes the first does.

        Raises:
            ValueError: the Hub refused. The folder stays, and what to type is said.
        """
        if self.push_to_hub is None or os.environ.get("RANK", "0") != "0":
            return
        from huggingface_hub import HfApi, get_token

        try:
            api = HfApi(token=get_token())
            api.create_repo(self.push_to_hub, private=not self.hub_public, exist_ok=True)
            if not self.hub_public and not api.repo_info(self.push_to_hub).private:
                raise PermissionError("it is there already, and public; give --hub-public if that is meant")
            where = api.upload_folder(
                repo_id=self.push_to_hub,
                folder_path=out,
                commit_message="Trained by errata",
                ignore_patterns=["runs/*"],
            )
        except Exception as error:  # of the network, of the Hub: no common class
            raise ValueError(
                f"{out} is finished and whole, but was not pushed to {self.push_to_hub} "
                f"({' '.join(str(error).split())[:300]}); rerun the same command to push it, or type "
                f"`{self._command(str(out))}`"
            ) from error
        console.print(f"→ {where}", highlight=False, soft_wrap=True)
        self._tell_base(out)

    def _command(self, out: str) -> str:
        return f"hf upload {self.push_to_hub} {out} .{'' if self.hub_public else ' --private'}"

    def _tell_base(self, out: Path) -> None:
        for config in out.glob("**/adapter_config.json"):
            base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
            if base and Path(base).exists():
                console.print(
                    f"its adapter names a base of this machine, {base}: others cannot load it without that",
                    highlight=False,
                    soft_wrap=True,
                )
