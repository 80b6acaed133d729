// Prints the logits that llama.cpp computes after the last of some tokens, one a line.
//
//   logits MODEL.gguf ADAPTER.gguf|- TOKEN...
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"

int main(int argc, char ** argv) {
    if (argc < 4) {
        fprintf(stderr, "logits MODEL.gguf ADAPTER.gguf|- TOKEN...\n");
        return 2;
    }
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
    }, nullptr);
    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    llama_model * model = llama_model_load_from_file(argv[1], model_params);
    if (!model) return 1;
    std::vector<llama_token> tokens;
    for (int i = 3; i < argc; i++) tokens.push_back(atoi(argv[i]));
    llama_context_params params = llama_context_default_params();
    params.n_ctx = tokens.size() + 8;
    params.n_batch = tokens.size();
    params.n_ubatch = tokens.size();
    params.n_threads = params.n_threads_batch = 1;
    // The cache in 32-bit floats, so that nothing is rounded but the weights and what is multiplied with them.
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) return 1;
    if (strcmp(argv[2], "-") != 0) {
        llama_adapter_lora * adapter = llama_adapter_lora_init(model, argv[2]);
        if (!adapter) return 1;
        float scale = 1.0f;
        if (llama_set_adapters_lora(context, &adapter, 1, &scale) != 0) return 1;
    }
    if (llama_decode(context, llama_batch_get_one(tokens.data(), tokens.size())) != 0) return 1;
    const float * logits = llama_get_logits_ith(context, -1);
    const int count = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int i = 0; i < count; i++) printf("%.9g\n", logits[i]);
    return 0;
}
