"""What is done with texts: `create_completion` and `embed`, and what lies between them and the decode loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iqrun.chat.session import common_prefix
from iqrun.compat import embeddings
from iqrun.compat.callbacks import LogitsProcessor, StoppingCriteria
from iqrun.compat.completion import Reply, Request, Scored, chunks, completion
from iqrun.compat.tokens import TokenLlama
from iqrun.generation.generate import Step, generate
from iqrun.generation.grammar import Grammar
from iqrun.sampling import SamplingOptions, token_logprobs

_PIECE = 64  # tokens of a prompt whose logits are held at once, for `echo` with `logprobs`


class TextLlama(TokenLlama):
    """The part of `Llama` that continues and embeds texts."""

    _pooling: int  # how `embed` makes one vector of many

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Sequence[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: StoppingCriteria | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        grammar: Grammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
        stream_options: Mapping[str, Any] | None = None,
    ) -> Reply | Iterator[Reply]:
        """Continues a prompt.

        Args:
            prompt: a text, in which the names of control tokens such as ``<|im_start|>`` are read as those tokens; or
                token ids, which are taken as they are.
            suffix: not supported: must be None.
            max_tokens: most tokens to draw; None or 0 draws until the context is full.
            temperature: 0 always takes the best token; below 0 draws from the model's own distribution.
            top_p: as in `iqrun.SamplingOptions`, like all of the following that have no description of their own.
            min_p: see there.
            typical_p: see there.
            logprobs: also show the log-probability of each token and of so many of the most probable ones.
            echo: begin the text with the prompt.
            stop: texts that end the answer; they are not part of it.
            frequency_penalty: see there.
            presence_penalty: see there.
            repeat_penalty: see there.
            top_k: see there.
            stream: give an iterator of chunks instead of the whole.
            seed: of this answer; None lets it follow from the last one.
            tfs_z: does nothing.
            mirostat_mode: 0 or 2.
            mirostat_tau: see there.
            mirostat_eta: see there.
            model: the name that the answer bears; None takes the path.
            stopping_criteria: a function of the tokens and the logits of the next one, which ends the answer.
            logits_processor: functions of the tokens and the logits of the next one, which return other logits.
            grammar: a `LlamaGrammar` that the answer must follow.
            logit_bias: token id to what is added to its logit.
            stream_options: ``{"include_usage": True}`` adds a last chunk without choices that counts the tokens, as in
                the OpenAI API; llama-cpp-python has no such argument.

        Returns:
            A dictionary of the text completion API, or an iterator of its chunks.

        Raises:
            NotImplementedError: `suffix`, or Mirostat 1.
            ValueError: the prompt does not fit into the context, or an option is out of range.
        """
        if suffix is not None:
            raise NotImplementedError("suffix is not supported by iqrun.compat: it only continues texts")
        ids = self._prompt_ids(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        if not ids:
            raise ValueError("the prompt has no tokens: this model does not begin a text by itself")
        room = self._n_ctx - len(ids)
        if room <= 0:
            raise ValueError(f"Requested tokens ({len(ids)}) exceed context window of {self._n_ctx}")
        text = prompt if isinstance(prompt, str) else self.tokenizer_.decode(ids)
        request = Request(model or self.model_path, self._tokenizer, text, ids, echo, logprobs)
        options = self._options(
            temperature=temperature,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            repeat_penalty=repeat_penalty,
            top_k=top_k,
            seed=self._next_seed(seed),
            tfs_z=tfs_z,
            mirostat_mode=mirostat_mode,
            mirostat_tau=mirostat_tau,
            mirostat_eta=mirostat_eta,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            logit_bias=logit_bias,
        )
        n_tokens = min(max_tokens, room) if max_tokens is not None and max_tokens > 0 else room
        scores = self._prompt_scores(request) if echo and logprobs is not None and not stream else []
        steps = self._steps(request, options, n_tokens, [stop] if isinstance(stop, str) else stop or (), grammar)
        if stream:
            return chunks(request, steps, include_usage=bool((stream_options or {}).get("include_usage")))
        return completion(request, steps, scores)

    def __call__(self, prompt: str | Sequence[int], *args: Any, **kwargs: Any) -> Reply | Iterator[Reply]:
        """As `create_completion`."""
        return self.create_completion(prompt, *args, **kwargs)

    # ---- embeddings ----

    def embed(
        self,
        input: str | Sequence[str],  # noqa: A002 - llama-cpp-python's name
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """A vector for each text, by the `pooling_type`; without pooling one for each token of it.

        Args:
            input: one text, or several.
            normalize: to length 1.
            truncate: take only the first `n_batch` tokens of a longer text.
            return_count: also give the number of tokens.

        Returns:
            A list of floats for a text (a list of them without pooling), or a list of those for several texts.

        Raises:
            ValueError: a text has more than `n_batch` tokens, or none at all.
        """
        found, n_tokens = [], 0
        for text in [input] if isinstance(input, str) else input:
            ids = self._tokenizer.encode(text)
            ids = ids[: self.n_batch] if truncate else ids
            if not 0 < len(ids) <= self.n_batch:
                raise ValueError(
                    f"Requested tokens ({len(ids)}) exceed batch size of {self.n_batch}, or there are none"
                )
            with self._borrowed() as session:
                session.truncate(0)
                found.append(embeddings.vectors(session, self._loaded().program, ids, self._pooling, normalize))
                session.truncate(0)
            n_tokens += len(ids)
        vectors = found[0] if isinstance(input, str) else found
        return (vectors, n_tokens) if return_count else vectors

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> Reply:  # noqa: A002
        """As `embed`, as a dictionary of the embeddings API."""
        texts = [input] if isinstance(input, str) else list(input)
        vectors, n_tokens = self.embed(texts, return_count=True)
        data = [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return {"object": "list", "data": data, "model": model or self.model_path, "usage": usage}

    def pooling_type(self) -> int:
        """How `embed` makes one vector of many; see the constructor."""
        return self._pooling

    # ---- inside ----

    def _prompt_ids(self, prompt: str) -> list[int]:
        """A prompt's tokens; BOS alone for the empty one."""
        bos = self._tokenizer.bos_id
        ids = self._tokenizer.encode(prompt, parse_special=True) if prompt else []
        if bos is not None and ids[:2] == [bos, bos]:
            name = self._tokenizer.token_text(bos)
            warnings.warn(f"the prompt begins with {name} twice: leave it out", RuntimeWarning, stacklevel=3)
        return ids or ([] if bos is None else [bos])

    def _steps(
        self,
        request: Request,
        options: SamplingOptions,
        max_tokens: int,
        stop: Sequence[str],
        grammar: Grammar | None,
    ) -> Iterator[Step]:
        """The answer; evaluates only what the sequence does not hold yet."""
        ids = request.prompt_ids
        with self._borrowed() as session:
            self._recall(session, ids)
            n_known = min(common_prefix(session.tokens, ids), len(ids) - 1)
            session.truncate(n_known)
            yield from generate(
                session,
                self._text_only,
                ids[n_known:],
                sampling=options,
                max_tokens=max_tokens,
                stop=stop,
                at_start=request.prompt == "",
                logprobs=request.logprobs,
                response_format=grammar,
                lookup=self._lookup,
            )
            self._remember(session)

    def _prompt_scores(self, request: Request) -> list[Scored]:
        """Log-probabilities of the prompt's own tokens without BOS; the first one has none, as in the API."""
        assert request.logprobs is not None
        ids = request.prompt_ids
        scores = [Scored(ids[0], None, None)]
        with self._borrowed() as session:
            session.truncate(0)
            for first in range(0, len(ids) - 1, _PIECE):
                piece = ids[first : min(first + _PIECE, len(ids) - 1)]
                for place, row in enumerate(session.evaluate(piece, want="all"), first + 1):
                    scores.append(Scored(ids[place], *token_logprobs(row, ids[place], request.logprobs)))
        if ids[0] == self._tokenizer.bos_id:
            scores = [Scored(score.token_id, None, None) for score in scores[1:2]] + scores[2:]
        return scores
