// What this agent can do: count the words, sentences and letters of a text, by the rules of its language.
// `Intl.Segmenter` knows where words end in languages that write no spaces, which is why this one is in JavaScript.

export const definition = {
  agent_id: 'words_agent',
  agent_type: 'text',
  capabilities: ['count_words'],
  max_in_flight: 8,
  heartbeat_interval_seconds: 5
}

// Input that no retry can mend; the agent reports it as `invalid_input`.
class InvalidInput extends Error {
  code = 'invalid_input'
}

export async function handle ({ text, language = 'en' }) {
  if (typeof text !== 'string') throw new InvalidInput('text: must be a string')
  const pieces = granularity => [...new Intl.Segmenter(language, { granularity }).segment(text)]
  return {
    words: pieces('word').filter(piece => piece.isWordLike).length,
    sentences: pieces('sentence').length,
    letters: pieces('grapheme').length
  }
}
