// Makes small tokenizers, one for each setting of each stage, and records what
// Hugging Face's tokenizers (npm: tokenizers 0.23.2) make of some texts, by hand:
//   node tests/interop/record_small_tokenizers.mjs NODE_MODULES
// writes tests/testdata/small-tokenizers.json: the base of them all, and of each its
// name, the parts that differ, and
//   cases      text, ids without the tokens around it, what those decode to
//   framed     ids of "ab" with the tokens around it
//   sequences  of ids, and what they decode to: with special tokens, without
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const { Tokenizer } = createRequire(path.resolve(process.argv[2], 'package.json'))('tokenizers');

const texts = ['', ' ', '  ', 'a', 'ab', 'abc', ' ab', 'ab ', ' ab  ab ', 'abab', 'abba', 'a b c', 'ab12 1 22c', '▁ab', 'a▁▁b',
  'a\nb', 'é', 'e\u0301', 'caféxyz', 'ﬁ ², Å', '\u1100\u1161\u11a8', 'xyz', 'axyzb', 'xé日', '日本', '😀', '<s>ab</s>', 'ab <s> ab',
  '<s>  ab', 'x<t>y', 'x <t> y', 'ab<t>ab', '<t><t>', ' <t>', '<t> ', 'a<w>b', 'a <w> b', '<w>', '<w><w>', '(<w>)', 'é<w>', '_<w>',
  '<T>', 'ＡB', '\u3000ab\u00a0', 'b,a;b', '..a..', '1a2b', 'aéb', '<0x41>', 'bbb', 'bab', 'aabb  bbaa'];

const characters = [...'abcdex12 .,é▁<>t'];
const merged = ['ab', 'abc', '▁a', '▁ab', 'bb', '12', ' a', ' ab', '..'];
const merges = ['a b', 'ab c', '▁ a', '▁a b', 'b b', '1 2', '  a', '  ab', '. .'];
const list = ['<unk>', '<s>', '</s>', ...characters, ...merged];
const ids = (tokens) => Object.fromEntries(tokens.map((token, id) => [token, id]));
const pairs = (lines) => lines.map((line) => (line.startsWith('  ') ? [' ', line.slice(2)] : line.split(' ')));
const model = {
  type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null,
  fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab: ids(list), merges: pairs(merges),
};
const added = (id, content, flags = {}) => ({
  id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false, ...flags,
});
const specials = [added(0, '<unk>', { special: true }), added(1, '<s>', { special: true }),
  added(2, '</s>', { special: true })];
const next = list.length;

const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
const withBytes = (chosen, flags = {}) => ({
  ...model, byte_fallback: true, vocab: ids([...list, ...chosen]), ...flags,
});

// The byte-level alphabet: printable Latin-1 as itself, the others from U+0100 on.
function alphabet() {
  const letters = [];
  let moved = 0x100;
  for (let byte = 0; byte < 256; ++byte) {
    const itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    letters.push(String.fromCodePoint(itself ? byte : moved++));
  }
  return letters;
}
const byteLevelModel = (letters, flags = {}) => ({
  ...model, unk_token: null, vocab: ids(['<unk>', '<s>', '</s>', ...letters, 'ab', 'Ġab', 'ðŁ']),
  merges: [['a', 'b'], ['Ġ', 'ab'], ['ð', 'Ł']], ...flags,
});
const byteLevel = (flags = {}) => ({
  type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false, ...flags,
});

const sequence = (field, steps) => ({ type: 'Sequence', [field]: steps });
const normalizer = (...steps) => ({ normalizer: sequence('normalizers', steps) });
const preTokenizer = (...steps) => ({ pre_tokenizer: sequence('pretokenizers', steps) });
const decoder = (...steps) => ({ decoder: sequence('decoders', steps) });
const string = (text) => ({ String: text });
const regex = (text) => ({ Regex: text });
const replace = (pattern, content) => ({ type: 'Replace', pattern, content });
const split = (pattern, behavior, invert = false) => ({ type: 'Split', pattern, behavior, invert });
const metaspace = (flags) => ({ type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true, ...flags });
const strip = (start, stop) => ({ type: 'Strip', content: ' ', start, stop });
const template = (before, after) => {
  const piece = (id) => ({ SpecialToken: { id, type_id: 0 } });
  const special = (id) => [id, { id, ids: [list.indexOf(id)], tokens: [id] }];
  return {
    type: 'TemplateProcessing',
    single: [...before.map(piece), { Sequence: { id: 'A', type_id: 0 } }, ...after.map(piece)],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: Object.fromEntries([...before, ...after].map(special)),
  };
};

const variants = {
  'no stages': {},
  'normalizer: empty sequence': normalizer(),
  'normalizer: prepend': { normalizer: { type: 'Prepend', prepend: '▁' } },
  'normalizer: prepend and replace': normalizer({ type: 'Prepend', prepend: '▁' }, replace(string(' '), '▁')),
  'normalizer: replace by a pattern': { normalizer: replace(regex(' {2,}'), ' ') },
  'normalizer: replace empty matches': { normalizer: replace(regex('(?=b)'), '.') },
  'normalizer: strip': { normalizer: { type: 'Strip', strip_left: true, strip_right: true } },
  'normalizer: strip the left': { normalizer: { type: 'Strip', strip_left: true, strip_right: false } },
  'normalizer: nested sequences': normalizer(sequence('normalizers', [{ type: 'NFKC' }]), replace(string('x'), 'ab')),
  'metaspace: always': preTokenizer(metaspace({})),
  'metaspace: first': preTokenizer(metaspace({ prepend_scheme: 'first' })),
  'metaspace: never': preTokenizer(metaspace({ prepend_scheme: 'never' })),
  'metaspace: first, unsplit': preTokenizer(metaspace({ prepend_scheme: 'first', split: false })),
  'metaspace: older form': { pre_tokenizer: { type: 'Metaspace', replacement: '▁', add_prefix_space: true } },
  'metaspace: first after a split': preTokenizer(split(string('b'), 'Removed'), metaspace({ prepend_scheme: 'first' })),
  'digits': { pre_tokenizer: { type: 'Digits', individual_digits: false } },
  'digits: individual': { pre_tokenizer: { type: 'Digits', individual_digits: true } },
  'unknown: fused': { model: { ...model, fuse_unk: true } },
  'unknown: none': { model: { ...model, unk_token: null } },
  'byte fallback': { model: withBytes(bytes), ...decoder({ type: 'ByteFallback' }, { type: 'Fuse' }) },
  'byte fallback: some bytes': { model: withBytes(bytes.slice(0, 0xa0)), ...decoder({ type: 'ByteFallback' }) },
  'byte fallback: some bytes, fused': { model: withBytes(bytes.slice(0, 0xe9), { fuse_unk: true }), ...decoder({ type: 'ByteFallback' }) },
  'ignore merges': { model: { ...model, ignore_merges: true, vocab: { ...ids([...list, 'cab', 'abab']) } } },
  'decoder: llama': { model: withBytes(bytes), ...normalizer({ type: 'Prepend', prepend: '▁' }, replace(string(' '), '▁')),
    ...decoder(replace(string('▁'), ' '), { type: 'ByteFallback' }, { type: 'Fuse' }, strip(1, 0)) },
  'decoder: strip of each token': decoder(strip(1, 0)),
  'decoder: strip of each token, its end': decoder(strip(0, 1)),
  'decoder: strip of several': decoder({ type: 'Fuse' }, strip(3, 0)),
  'decoder: replace by a pattern': decoder(replace(regex('[ab]+'), 'é')),
  'decoder: metaspace': { decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true } },
  'decoder: metaspace, never': { decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'never', split: true } },
  'decoder: bytes, then metaspace': { model: withBytes(bytes), ...decoder({ type: 'ByteFallback' }, { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: true }) },
  'byte level': { model: byteLevelModel(alphabet()), pre_tokenizer: byteLevel(), decoder: byteLevel() },
  'byte level: prefix space, pattern': { model: byteLevelModel(alphabet()), pre_tokenizer: byteLevel({ add_prefix_space: true, use_regex: true }), decoder: byteLevel() },
  'byte level: prefix space of pieces': { model: byteLevelModel(alphabet()), ...preTokenizer(split(regex('[0-9]'), 'Isolated'), byteLevel({ add_prefix_space: true })), decoder: byteLevel() },
  'byte level: some bytes': { model: byteLevelModel(alphabet().slice(0, 200), { merges: [['a', 'b']] }), pre_tokenizer: byteLevel(), decoder: byteLevel() },
  'byte level: some bytes, unknown': { model: byteLevelModel(alphabet().slice(0, 200), { merges: [], unk_token: '<unk>', fuse_unk: true }), pre_tokenizer: byteLevel(), decoder: byteLevel() },
  'added: strips': { added_tokens: [...specials, added(next, '<t>', { lstrip: true, rstrip: true })] },
  'added: strips the left': { added_tokens: [...specials, added(next, '<t>', { lstrip: true })] },
  'added: strips the right': { added_tokens: [...specials, added(next, '<t>', { rstrip: true, special: true })] },
  'added: single words': { added_tokens: [...specials, added(next, '<w>', { single_word: true }), added(next + 1, 'b', { single_word: true, normalized: true })].map((token) => (token.content === 'b' ? { ...token, id: list.indexOf('b') } : token)) },
  'added: normalized': { added_tokens: [...specials, added(next, 'ＡB', { normalized: true }), added(next + 1, ' <t>', { normalized: true })], normalizer: { type: 'NFKC' } },
  'added: normalized, prepended': { added_tokens: specials.map((token) => ({ ...token, normalized: true })), ...normalizer({ type: 'Prepend', prepend: '▁' }, replace(string(' '), '▁')) },
  'added: a space in it': { added_tokens: [...specials, added(next, ' <t> ', {}), added(next + 1, 'y', { rstrip: true })] },
  'post-processor: both ends': { post_processor: template(['<s>'], ['</s>', '</s>']) },
  'post-processor: in a sequence': { post_processor: sequence('processors', [byteLevel(), template(['<s>'], [])]) },
  'post-processor: bert': { post_processor: { type: 'BertProcessing', cls: ['<s>', 1], sep: ['</s>', 2] } },
  'post-processor: roberta': { post_processor: { type: 'RobertaProcessing', cls: ['<s>', 1], sep: ['</s>', 2], trim_offsets: true, add_prefix_space: true } },
};
for (const form of ['NFC', 'NFD', 'NFKC', 'NFKD']) {
  variants[`normalizer: ${form}`] = { model: byteLevelModel(alphabet()), normalizer: { type: form }, pre_tokenizer: byteLevel(), decoder: byteLevel() };
}
for (const behavior of ['Removed', 'Isolated', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext']) {
  for (const invert of [false, true]) {
    const name = `split: ${behavior}${invert ? ', inverted' : ''}`;
    variants[`${name}, by a text`] = { pre_tokenizer: split(string('b'), behavior, invert) };
    variants[`${name}, by a pattern`] = { pre_tokenizer: split(regex('[b.]|(?=a)'), behavior, invert) };
  }
}

// The added tokens are the vocabulary's first; some bytes have no token, and there is no
// unknown one: they are left out, and what stood around them is merged.
variants['byte level: as SmolLM2'] = {
  model: byteLevelModel(alphabet().filter((letter) => !'Ã©âĊ2'.includes(letter))),
  ...preTokenizer({ type: 'Digits', individual_digits: true }, byteLevel({ use_regex: true })), decoder: byteLevel(),
};

const base = {
  version: '1.0', truncation: null, padding: null, added_tokens: specials, normalizer: null, pre_tokenizer: null,
  post_processor: null, decoder: { type: 'Fuse' }, model,
};

let seed = 1;
const random = (limit) => {
  seed = (seed * 48271) % 2147483647;
  return seed % limit;
};

const recorded = [];
for (const [name, parts] of Object.entries(variants)) {
  const tokenizer = Tokenizer.fromString(JSON.stringify({ ...base, ...parts }));
  const encode = async (text, addSpecialTokens) => (await tokenizer.encode(text, null, { addSpecialTokens })).getIds();
  const added = parts.added_tokens ?? base.added_tokens;
  const special = new Set(added.filter((token) => token.special).map((token) => token.id));
  const cases = [];
  for (const text of texts) {
    const tokens = await encode(text, false);
    cases.push([text, tokens, await tokenizer.decode(tokens, false)]);
  }
  const sequences = [];
  for (let count = name.includes('yte') || name.startsWith('decoder') ? 40 : 5; count > 0; --count) {
    const tokens = Array.from({ length: 1 + random(9) }, () => random(tokenizer.getVocabSize(true)));
    // Left out here: the library, asked to skip them, keeps those that are normalized.
    const plain = tokens.filter((id) => !special.has(id));
    sequences.push([tokens, await tokenizer.decode(tokens, false), await tokenizer.decode(plain, false)]);
  }
  recorded.push({ name, parts, framed: await encode('ab', true), cases, sequences });
}
fs.writeFileSync(
  path.join(import.meta.dirname, '..', 'testdata', 'small-tokenizers.json'),
  `{"base": ${JSON.stringify(base)},\n"variants": [\n${recorded.map((one) => JSON.stringify(one)).join(',\n')}\n]}\n`,
);
