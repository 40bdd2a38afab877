"""Reward: train, apply and measure reward models, for whole responses and for single tokens."""

from errata.reward.evaluate import Localisation, auc, best_of_n, localisation, pair_accuracy, token_means
from errata.reward.project import ProjectedReward, project_rewards
from errata.reward.report import (
    calibration_error,
    rank_correlation,
    readings,
    repetition,
    report_edits,
    report_preferences,
    report_samples,
    report_word_tags,
    word_lows,
)
from errata.reward.score import (
    RewardFunction,
    Scorer,
    SequenceScorer,
    TokenScorer,
    encode_rollout,
    fit_scale,
    load_scorer,
    score_answers,
    score_texts,
)
from errata.reward.train import (
    RewardConfig,
    TokenRewardConfig,
    encode_pair,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)

__all__ = [
    "Localisation",
    "ProjectedReward",
    "RewardConfig",
    "RewardFunction",
    "Scorer",
    "SequenceScorer",
    "TokenRewardConfig",
    "TokenScorer",
    "auc",
    "best_of_n",
    "calibration_error",
    "encode_pair",
    "encode_rollout",
    "fit_scale",
    "load_scorer",
    "localisation",
    "pair_accuracy",
    "project_rewards",
    "rank_correlation",
    "readings",
    "repetition",
    "report_edits",
    "report_preferences",
    "report_samples",
    "report_word_tags",
    "score_answers",
    "score_texts",
    "token_means",
    "train_sequence_reward",
    "train_token_reward",
    "train_token_reward_bradley_terry",
    "word_lows",
]
