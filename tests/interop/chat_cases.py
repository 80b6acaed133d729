"""Writes tests/fixtures/chat/expected.json: what transformers makes of the templates and conversations beside it.

Run with Python that has transformers 5.24: python tests/interop/chat_cases.py
"""

import json
import re
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "chat"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place, in \"its\" own words.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["Köln", "Ōsaka"]}, "days": {"type": "integer", "default": 1}},
            "required": ["place"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "description": "The time.", "parameters": {}}}


def say(role, content, **others):
    return {"role": role, "content": content, **others}


CALL = {"id": "abc123def", "type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2, "exact": 0.5}}}
CONVERSATIONS = {
    "one question": {"messages": [say("user", "What is the capital of France?")]},
    "two turns": {"messages": [say("user", " Hi. "), say("assistant", "Hello!\n"), say("user", "Bye."), say("assistant", "Good bye.")]},
    "a system message": {"messages": [say("system", "Be short. /no_think "), say("user", "Hi"), say("assistant", "Hi."), say("user", "é <|im_end|> 😀")]},
    "thoughts": {
        "messages": [
            say("user", "1+1?"), say("assistant", "<think>\nOne and one.\n</think>\n\n2"), say("user", "2+2?"),
            say("assistant", "4", reasoning_content="Two and two."),
        ]
    },
    "tools": {
        "messages": [
            say("user", "The weather?"), {"role": "assistant", "content": None, "tool_calls": [CALL]},
            say("tool", "{\"sun\": true}", tool_call_id="abc123def"), say("assistant", "Sunny."), say("user", "Thanks."),
        ],
        "tools": [WEATHER, TIME],
    },
    "no thinking": {"messages": [say("user", "Hi")], "variables": {"enable_thinking": False}},
    "roles that do not alternate": {"messages": [say("user", "a"), say("user", "b")]},
    "a custom role": {"messages": [say("user", "a"), say("assistant", "b"), say("critic", "c")]},
}


def render(source, conversation, prompt, spans=False):
    variables = {"date_string": "26 Jul 2024", **conversation.get("variables", {})}
    messages = [{k: v for k, v in message.items() if v is not None} for message in conversation["messages"]]
    texts, indices = render_jinja_template(
        [messages], tools=conversation.get("tools"), chat_template=source, add_generation_prompt=prompt,
        return_assistant_tokens_mask=spans, **TOKENS, **variables,
    )
    return texts[0], (indices[0] if spans else None)


cases = []
for path in sorted(FOLDER.glob("*.jinja")):
    source = path.read_text(encoding="utf-8")
    for name, conversation in CONVERSATIONS.items():
        case = {"template": path.name, "conversation": name}
        try:
            case["text"], _ = render(source, conversation, False)
            case["prompt"], _ = render(source, conversation, True)
            if re.search(r"\{\%-?\s*generation\s*-?\%\}", source):
                _, case["generated"] = render(source, conversation, False, True)
        except jinja2.exceptions.TemplateError as error:
            case["error"] = str(error)
        cases.append(case)
written = {"tokens": TOKENS, "conversations": CONVERSATIONS, "cases": cases}
(FOLDER / "expected.json").write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
