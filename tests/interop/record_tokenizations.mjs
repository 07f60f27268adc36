// Records what Hugging Face's tokenizers (npm: tokenizers 0.23.2, the Rust library's
// binding) make of tests/testdata/tokenization/inputs.json, by hand:
//   node tests/interop/record_tokenizations.mjs NODE_MODULES TOKENIZERS_DIR
// NODE_MODULES has the package; TOKENIZERS_DIR is what tests/fetch_tokenizers.sh fills.
// Each tokenizer's file has
//   ids        of each input, without the tokens that stand around it
//   decoded    what those decode to, by input, where it is not the input
//   before, after   the tokens around an input
//   sequences  random ones, and what they decode to: with special tokens, without
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const [modules, folder] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.resolve(modules, 'package.json'))('tokenizers');
const data = path.join(import.meta.dirname, '..', 'testdata', 'tokenization');
const inputs = JSON.parse(fs.readFileSync(path.join(data, 'inputs.json'), 'utf8'));

let seed;
const random = (limit) => {
  seed = (seed * 48271) % 2147483647;
  return seed % limit;
};

// Mostly of the ids at both ends, where bytes and special tokens are.
function randomSequence(size) {
  const pick = () => [random(size), random(Math.min(size, 300)), size - 1 - random(Math.min(size, 300))];
  return Array.from({ length: 1 + random(14) }, () => pick()[random(3)]);
}

async function record(name) {
  seed = 1;
  const tokenizer = Tokenizer.fromFile(path.join(folder, `${name}.json`));
  const encode = async (text, addSpecialTokens) =>
    (await tokenizer.encode(text, null, { addSpecialTokens })).getIds();
  const ids = [];
  const decoded = {};
  for (const [index, text] of inputs.entries()) {
    ids.push(await encode(text, false));
    const back = await tokenizer.decode(ids[index], false);
    if (back !== text) decoded[index] = back;
  }
  const bare = await encode('x', false);
  const framed = await encode('x', true);
  const start = framed.indexOf(bare[0]);
  const special = new Set(
    JSON.parse(fs.readFileSync(path.join(folder, `${name}.json`), 'utf8'))
      .added_tokens.filter((token) => token.special).map((token) => token.id),
  );
  const sequences = [];
  while (sequences.length < 100) {
    const sequence = randomSequence(tokenizer.getVocabSize(true));
    // Left out here: the library, asked to skip them, keeps those that are normalized.
    const plain = sequence.filter((id) => !special.has(id));
    sequences.push([sequence, await tokenizer.decode(sequence, false), await tokenizer.decode(plain, false)]);
  }
  const lines = (values) => `[\n${values.map((value) => JSON.stringify(value)).join(',\n')}\n]`;
  fs.writeFileSync(path.join(data, `${name}.json`), `{"before": ${JSON.stringify(framed.slice(0, start))},
"after": ${JSON.stringify(framed.slice(start + bare.length))},
"ids": ${lines(ids)},
"decoded": ${JSON.stringify(decoded)},
"sequences": ${lines(sequences)}}
`);
}

for (const file of fs.readdirSync(folder).filter((file) => file.endsWith('.json')).sort()) {
  await record(path.basename(file, '.json'));
}
