-- What journeys are found by says nothing that their events do not.
DROP TABLE reply_words;
DROP TABLE replies;
DROP TABLE message_ids;
