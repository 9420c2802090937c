"""A script written for llama-cpp-python, moved over by its import line alone; and one for the openai package.

python examples/llama_cpp_python.py models/demo/stories-13m-f16.gguf
"""

import sys

from iqrun.compat import Llama, OpenAI  # was: from llama_cpp import Llama; from openai import OpenAI

llm = Llama(model_path=sys.argv[1], n_ctx=512, n_gpu_layers=-1, seed=1, verbose=False)
output = llm("Once upon a time", max_tokens=32, stop=["\n"], echo=True, temperature=0)
print(output["choices"][0]["text"], output["usage"])

for chunk in llm.create_chat_completion([{"role": "user", "content": "Tell me a story."}], max_tokens=32, stream=True):
    print(chunk["choices"][0]["delta"].get("content", ""), end="", flush=True)
print()

client = OpenAI(llm)
reply = client.chat.completions.create(
    model="stories", messages=[{"role": "user", "content": "Tell me a story about Lily."}], max_tokens=32
)
print(reply.choices[0].message.content)
llm.close()
