#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_RENDERER_SCRIPT_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_RENDERER_SCRIPT_H_

namespace mechinterp::engine {

// render_chat_templates.py, as the build embeds it.
extern const char kRendererScript[];

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_RENDERER_SCRIPT_H_
