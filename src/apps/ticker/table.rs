//! Tables of symbols and start prices: the built-in one, and those from files.

use super::market::{MAX_SYMBOLS, PRICES, check_symbol};

/// The default symbols and start prices.
pub const TABLE: [(&str, f64); 8] = [
    ("AAPL", 133.11),
    ("CMG", 1518.75),
    ("CSL.AX", 288.18),
    ("GRMN", 144.37),
    ("MOAT", 74.29),
    ("QAN.AX", 4.55),
    ("SPY", 426.61),
    ("WPL.AX", 22.45),
];

/// Reads lines `SYMBOL,PRICE`; a first line `Symbol,Price` or the like is a heading, and empty lines are skipped.
///
/// # Errors
/// The line that is wrong, and why.
pub fn read_csv(text: &str) -> Result<Vec<(String, f64)>, String> {
    let mut table = Vec::new();
    // Spreadsheets start a file with a byte order mark.
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines()).filter(|(_, line)| !line.trim().is_empty());
    for (index, (number, line)) in lines.enumerate() {
        let bad = |why: &str| format!("line {number}: {why}: '{}'", line.trim());
        let (symbol, price) = line.split_once(',').ok_or_else(|| bad("no comma between symbol and price"))?;
        let [symbol, price] = [symbol, price].map(|field| field.trim().trim_matches('"'));
        if index == 0 && price.to_ascii_lowercase().contains("price") {
            continue;
        }
        let price: f64 = price.parse().map_err(|_| bad("the price is not a number"))?;
        check_symbol(symbol).map_err(|error| bad(&error.to_string()))?;
        if !PRICES.contains(&price) {
            return Err(bad("the price is not between 0.01 and 1e12"));
        }
        table.push((symbol.to_owned(), price));
    }
    if table.is_empty() || table.len() > MAX_SYMBOLS {
        return Err(format!("{} symbols: give 1 to {MAX_SYMBOLS}", table.len()));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_prices() {
        let table = read_csv("\u{feff}\nSymbol,\"Start price\"\n AAPL , 1.5\n\n\"SPY\",\"2\"\n");
        assert_eq!(table, Ok(vec![("AAPL".to_owned(), 1.5), ("SPY".to_owned(), 2.0)]));
        for (text, said) in [
            ("", "0 symbols"),
            ("a,lots", "line 1: the price is not a number"),
            ("SPY,\"1,234.5\"", "line 1: the price is not a number"),
            ("AAPL 1", "line 1: no comma"),
            ("a,1\nb,x", "line 2: the price is not a number"),
            ("a,1\nb,0", "0.01"),
            ("a,1\nb,inf", "0.01"),
            ("a b,1", "not a symbol"),
        ] {
            let error = read_csv(text).expect_err("it is bad");
            assert!(error.contains(said), "{error}");
        }
    }
}
