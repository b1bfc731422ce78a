//! Korean particles: which one follows a word depends on whether it ends in a consonant as it is spoken.

/// How a word ends in speech.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Vowel,
    /// ㄹ, after which `로` is said.
    Rieul,
    Consonant,
}

/// The particle that fits a word; `of` is either one of its pair (`이`, `을`, `은`, `과`, `으로`).
pub(crate) fn particle(word: &str, of: &str) -> &'static str {
    let ending = ending(word);
    let (after_consonant, after_vowel) = match of {
        "이" | "가" => ("이", "가"),
        "을" | "를" => ("을", "를"),
        "은" | "는" => ("은", "는"),
        "과" | "와" => ("과", "와"),
        _ if ending == Ending::Rieul => ("로", "로"),
        _ => ("으로", "로"),
    };
    if ending == Ending::Vowel { after_vowel } else { after_consonant }
}

/// A text that writes both particles and leaves the choice to the reader: `이(가)`.
#[cfg(test)]
pub(crate) fn leaves_choice(text: &str) -> bool {
    let forms = [
        "이(가)", "가(이)", "을(를)", "를(을)", "은(는)", "는(은)", "와(과)", "과(와)", "(으)로", "(이)", "이/가",
        "을/를", "은/는",
    ];
    forms.iter().any(|form| text.contains(form))
}

fn ending(word: &str) -> Ending {
    let Some(last) = word.chars().rev().find(|letter| letter.is_alphanumeric()) else { return Ending::Vowel };
    match last {
        '가'..='힣' => match (last as u32 - '가' as u32) % 28 {
            0 => Ending::Vowel,
            8 => Ending::Rieul,
            _ => Ending::Consonant,
        },
        // 영 일 이 삼 사 오 육 칠 팔 구
        '1' | '7' | '8' => Ending::Rieul,
        '0' | '3' | '6' => Ending::Consonant,
        // Capitals are read by name: 엘 엠 엔 알; small letters as the words that they end are borrowed (드릴, 시스템, 모터).
        'L' | 'R' | 'l' => Ending::Rieul,
        'M' | 'N' | 'm' | 'n' => Ending::Consonant,
        'g' if word.ends_with("ng") => Ending::Consonant,
        _ => Ending::Vowel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_particle_follows_the_last_sound() {
        let cases = [
            ("토크", "이", "가"),
            ("회전 속도", "을", "를"),
            ("동력", "이", "이"),
            ("방열 불량", "은", "은"),
            ("진동", "과", "과"),
            ("유량", "으로", "으로"),
            ("진동 과다", "으로", "로"),
            ("드릴", "으로", "로"),
            ("드릴", "을", "을"),
            ("라인 3", "이", "이"),
            ("라인 2", "이", "가"),
            ("라인 7", "으로", "로"),
            ("machine-010", "을", "을"),
            ("PLC", "이", "가"),
            ("HTTP URL", "을", "을"),
            ("ROOM", "으로", "으로"),
            ("motor", "을", "를"),
            ("bearing", "이", "이"),
            ("펌프(예비)", "을", "를"),
            ("", "이", "가"),
        ];
        for (word, of, fits) in cases {
            assert_eq!(particle(word, of), fits, "{word}");
        }
    }

    #[test]
    fn open_choices_are_recognised() {
        assert!(
            leaves_choice("토크을(를) 낮추십시오") && leaves_choice("값이(가)") && !leaves_choice("토크를 낮추십시오")
        );
    }
}
