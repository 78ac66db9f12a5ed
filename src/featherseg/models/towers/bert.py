"""BERT (Devlin et al., 2019, arXiv 1810.04805), transformers' modules, walked block by block."""

import torch
from torch import Tensor
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from featherseg.models.base import LearnedTokens

ATTENTION, MLP = "attention.output.dense", "output.dense"  # what a block adds to its states, before each norm
BEFORE_MLP = "intermediate"
PROJECTIONS = {"q_proj": "attention.self.query", "k_proj": "attention.self.key",
               "v_proj": "attention.self.value", "out_proj": "attention.output.dense"}


def build_bert(vocabulary: int, width: int, depth: int, heads: int, positions: int, dropout: float = 0.0) -> BertModel:
    """A BERT in random weights, without the pooler.

    Args:
        vocabulary: word pieces that it knows.
        width, depth, heads: of its blocks; the MLP is four times as wide.
        positions: tokens that it has positions for.
        dropout: of states and attention in training.
    """
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=positions, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, attn_implementation="sdpa")
    return BertModel(config, add_pooling_layer=False)


def walk_bert(bert: BertModel, tokens: Tensor, prompt: LearnedTokens) -> list[Tensor]:
    """States (B, L, width) after each block, of token ids (B, L) of which 0 is padding and is not attended to.

    Learned tokens stand behind the first token while the blocks run, and are taken out of what is returned.
    """
    words = tokens != 0
    learned = words.new_ones(len(words), prompt.count)
    attended = torch.cat([words[:, :1], learned, words[:, 1:]], dim=1)[:, None, None]
    states = prompt.insert(bert.embeddings(input_ids=tokens))
    walked = []
    for block in bert.encoder.layer:
        states = block(states, attended)
        walked.append(prompt.remove(states))
    return walked


def mean_of_words(states: Tensor, tokens: Tensor) -> Tensor:
    """The mean (B, width) of the states (B, L, width) of all tokens but padding, as sentence-transformers pools them
    (Reimers & Gurevych, 2019, arXiv 1908.10084)."""
    words = (tokens != 0).unsqueeze(2).to(states.dtype)
    return (states * words).sum(dim=1) / words.sum(dim=1)
