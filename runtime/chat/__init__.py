"""Conversations.

- `chat`: `iqrun.Chat`, the turns and their answers;
- `template`: messages as text, by the file's Jinja template, which `template_limits` keeps within bounds;
- `window`: which messages are left out when the context is full;
- `prompt`: both together, as the tokens to read;
- `session`: a session that keeps what the last prompt shares with the next;
- `thinking`: what a reasoning model thinks, apart from what it says.
"""
