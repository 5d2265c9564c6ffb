-- What mail is found by says nothing that the messages do not.
DROP TABLE letter_words;
DROP TABLE conversation_ids;
DROP TABLE letters;
DROP TABLE read_folders;
DROP TABLE read_accounts;
