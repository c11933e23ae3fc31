//! Folders in which Exchange shows what is no mail: its calendar, contacts, journal, notes and tasks, in the language that
//! the mailbox was first opened in.
//!
//! Nothing that Exchange says tells such a folder from one with mail, so names decide, and only together: a language counts
//! where the mailbox has both its calendar and its contacts at the top. A folder of mail that a user of another language
//! called "Notizen" is copied.

use std::collections::BTreeSet;

/// The names of one language: calendar, contacts, journal, notes, tasks.
type LanguageNames = [&'static str; 5];

/// The names of the folders at the top that hold no mail, in lower case, of those that there are (`top`, decoded, any case).
#[must_use]
pub(crate) fn no_mail_names<'a>(top: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let top: BTreeSet<String> = top.into_iter().map(str::to_lowercase).collect();
    let spoken = LANGUAGES.iter().filter(|[calendar, contacts, ..]| top.contains(*calendar) && top.contains(*contacts));
    spoken.flatten().filter(|name| top.contains(**name)).map(|name| (*name).to_owned()).collect()
}

/// In lower case. Where a language changed a name between versions, it stands twice.
const LANGUAGES: [LanguageNames; 44] = [
    ["calendar", "contacts", "journal", "notes", "tasks"],
    ["kalender", "kontakte", "journal", "notizen", "aufgaben"],
    ["calendrier", "contacts", "journal", "notes", "tâches"],
    ["calendario", "contactos", "diario", "notas", "tareas"],
    ["calendario", "contatti", "diario", "note", "attività"],
    ["calendário", "contatos", "diário", "anotações", "tarefas"],
    ["calendário", "contactos", "diário", "notas", "tarefas"],
    ["agenda", "contactpersonen", "logboek", "notities", "taken"],
    ["agenda", "contactpersonen", "dagboek", "notities", "taken"],
    ["kalender", "kontaktpersoner", "journal", "noter", "opgaver"],
    ["kalender", "kontakter", "journal", "noter", "opgaver"],
    ["kalender", "kontakter", "journal", "anteckningar", "uppgifter"],
    ["kalender", "kontakter", "journal", "notater", "oppgaver"],
    ["kalender", "kontakter", "logg", "notater", "oppgaver"],
    ["kalenteri", "yhteystiedot", "päiväkirja", "muistilaput", "tehtävät"],
    ["dagatal", "tengiliðir", "dagbók", "minnispunktar", "verkefni"],
    ["kalender", "kontaktid", "päevik", "märkmed", "ülesanded"],
    ["kalendārs", "kontaktpersonas", "žurnāls", "piezīmes", "uzdevumi"],
    ["kalendorius", "kontaktai", "žurnalas", "pastabos", "užduotys"],
    ["kalendarz", "kontakty", "dziennik", "notatki", "zadania"],
    ["kalendář", "kontakty", "deník", "poznámky", "úkoly"],
    ["kalendár", "kontakty", "denník", "poznámky", "úlohy"],
    ["naptár", "névjegyalbum", "napló", "feljegyzések", "feladatok"],
    ["naptár", "partnerek", "napló", "feljegyzések", "feladatok"],
    ["calendar", "persoane de contact", "jurnal", "note", "activități"],
    ["calendar", "contacte", "jurnal", "note", "activități"],
    ["koledar", "stiki", "dnevnik", "opombe", "opravila"],
    ["kalendar", "kontakti", "dnevnik", "bilješke", "zadaci"],
    ["kalendar", "kontakti", "dnevnik", "beleške", "zadaci"],
    ["календар", "контакти", "дневник", "бележки", "задачи"],
    ["календар", "контакти", "щоденник", "нотатки", "завдання"],
    ["календарь", "контакты", "дневник", "заметки", "задачи"],
    ["ημερολόγιο", "επαφές", "χρονικό", "σημειώσεις", "εργασίες"],
    ["takvim", "kişiler", "günlük", "notlar", "görevler"],
    ["calendari", "contactes", "diari", "notes", "tasques"],
    ["egutegia", "kontaktuak", "egunkaria", "oharrak", "zereginak"],
    ["calendario", "contactos", "diario", "notas", "tarefas"],
    ["予定表", "連絡先", "履歴", "メモ", "タスク"],
    ["日历", "联系人", "日记", "便笺", "任务"],
    ["行事曆", "連絡人", "日誌", "記事", "工作"],
    ["일정", "연락처", "업무 일지", "메모", "작업"],
    ["לוח שנה", "אנשי קשר", "יומן", "פתקים", "משימות"],
    ["التقويم", "جهات الاتصال", "دفتر اليومية", "الملاحظات", "المهام"],
    ["lịch", "liên hệ", "nhật ký", "ghi chú", "tác vụ"],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(top: &[&str]) -> Vec<String> {
        no_mail_names(top.iter().copied()).into_iter().collect()
    }

    #[test]
    fn folders_without_mail_are_known_in_the_language_of_the_mailbox() {
        let english = ["INBOX", "Calendar", "Contacts", "Journal", "Notes", "Tasks", "Sent Items"];
        assert_eq!(found(&english), ["calendar", "contacts", "journal", "notes", "tasks"]);
        let german = ["INBOX", "Kalender", "Kontakte", "Notizen", "Aufgaben", "Notes"];
        assert_eq!(found(&german), ["aufgaben", "kalender", "kontakte", "notizen"], "Notes is no word of this mailbox");
        assert_eq!(found(&["予定表", "連絡先", "メモ"]), ["メモ", "予定表", "連絡先"]);
    }

    #[test]
    fn a_name_alone_says_nothing() {
        assert_eq!(found(&["Notes", "Tasks", "Journal"]), [""; 0]);
        assert_eq!(found(&["Calendar", "Kontakte"]), [""; 0]);
    }

    #[test]
    fn names_are_written_as_they_are_compared() {
        for name in LANGUAGES.iter().flatten() {
            assert_eq!(name.to_lowercase(), *name);
        }
    }
}
