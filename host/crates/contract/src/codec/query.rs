//! The pairs of a URL's query (WHATWG `application/x-www-form-urlencoded`), decoded.

use std::borrow::Cow;

use super::json::Broken;

/// Name and value of each parameter, in their order.
///
/// A plus is a space, except where a space would make no sense and people mean a telephone number: at the beginning of a value and after
/// a comma it stays a plus.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Broken>> {
    let mut at = 0;
    query.split('&').filter_map(move |pair| {
        let start = at;
        at += pair.len() + 1;
        if pair.is_empty() {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some(decode(name, start).and_then(|name_decoded| Ok((name_decoded, decode(value, start + name.len() + 1)?))))
    })
}

fn decode(text: &str, start: usize) -> Result<Cow<'_, str>, Broken> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let broken = |at: usize, reason: &str| Broken { at: start + at, reason: reason.to_owned() };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'+' => {
                let stays = matches!(decoded.last(), None | Some(b','));
                decoded.push(if stays { b'+' } else { b' ' });
                at += 1;
            }
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                    return Err(broken(at, "two hexadecimal digits are expected after a percent sign of the query"));
                };
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            other => {
                decoded.push(other);
                at += 1;
            }
        }
    }
    match String::from_utf8(decoded) {
        Ok(decoded) => Ok(Cow::Owned(decoded)),
        Err(_) => Err(broken(0, "this part of the query is no UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expect: &[(&str, &str)]) {
        let pairs: Vec<_> = pairs(query).map(|pair| pair.expect("good")).collect();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, expect, "{query}");
    }

    #[test]
    fn pairs_are_decoded() {
        check("", &[]);
        check("&a&&b=&c=1", &[("a", ""), ("b", ""), ("c", "1")]);
        check("q=hello+w%C3%B6rld%21&x=a=b", &[("q", "hello wörld!"), ("x", "a=b")]);
        check("phone=+14155552671&phones=%2B1,+44", &[("phone", "+14155552671"), ("phones", "+1,+44")]);
        check("%61=%00", &[("a", "\0")]);
    }

    #[test]
    fn broken_ones_say_where() {
        assert_eq!(pairs("a=1&b=%4").nth(1).unwrap().unwrap_err().at, 6);
        assert!(pairs("a=%ff").next().unwrap().unwrap_err().reason.contains("UTF-8"));
    }
}
