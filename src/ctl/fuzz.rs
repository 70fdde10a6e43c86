//! Any text as what people type: a transaction, or what is wrong with it.

use super::txn_grammar::{read, split};
use crate::go::{quote, unquote};
use std::os::unix::ffi::OsStrExt as _;

/// Reads what `data` is.
pub(crate) fn target(data: &[u8]) {
    let quoted = quote(data);
    assert_eq!(unquote(quoted.as_bytes()), Some((data.to_vec(), &b""[..])), "{quoted}");
    let mut prompts = 0;
    let parsed = read(&mut &*data, |_| prompts += 1);
    assert!(parsed.is_err() || prompts == 3, "a transaction has three parts");
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(words) = split(line) else { continue };
        // Words that are quoted again are the same words.
        let again: Vec<_> = words.iter().map(|word| quote(word.as_bytes())).collect();
        assert_eq!(split(again.join(" ").as_bytes()), Ok(words), "{line:?}");
    }
}

/// Transactions with each word of the language.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "mod(\"foo\") > \"0\"\nvalue(\"a b\") = \"x\\ty\"\n\nput foo \"a\\nb c\" --prev-kv\nget f --prefix\n\ndel foo\n\n",
        "ver(\"a\") != \"1\"\ncreate(\"b\") < \"9\"\nlease(`c`) = \"7f\"\nval(\"\\x00\\377\\u00e9\") = \"\"\n\n\n\n",
        "\nput a 'b c' --lease=1a\nput --ignore-value -- -a\n\nget a b --rev=5 --limit 3 --sort-by=MODIFY --order DESCEND\ndel a --from-key --prev-kv\n\n",
        "bogus\n\n\n\n",
        "\nput a \"b\n\n\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_seeds_are_transactions() {
        assert_eq!(seeds().iter().filter(|seed| read(&mut &***seed, |_| {}).is_ok()).count(), 4);
    }
}
