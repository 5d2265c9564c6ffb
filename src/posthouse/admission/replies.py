"""The replies of policy, in one table: code, enhanced code (RFC 3463, RFC 5248), text."""

from __future__ import annotations

from posthouse.mail.reply import reply

SENDER_OK = reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient OK")
NOT_YOUR_IDENTITY = reply(550, "5.7.1", "You may not send as this address")
SENDER_TAKES_NO_MAIL = reply(550, "5.7.27", "The domain of the sender's address says that it takes no mail")
RELAY_REFUSED = reply(550, "5.7.1", "Mail for other domains is not relayed for you; log in first")
NOT_A_REPORT = reply(550, "5.7.1", "Only reports, from the null path, come back to this address")
NO_SUCH_MAILBOX = reply(550, "5.1.1", "There is no such mailbox here")
ALIAS_BROKEN = reply(550, "5.4.6", "This alias leads nowhere")
ALIAS_TOO_LARGE = reply(550, "5.4.6", "This alias leads to too many addresses")
SHORT_DOMAIN = reply(554, "5.1.2", "The domain is not a full name such as example.org")
MAILBOX_FULL = reply(452, "4.2.2", "The mailbox is full; try again later")
NEVER_FITS = reply(552, "5.2.2", "The message is larger than all that this mailbox may hold")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients; send the rest in another transaction")
DIRECTORY_UNAVAILABLE = reply(451, "4.3.0", "The directory cannot be asked now; try again later")
STORAGE_BUSY = reply(451, "4.3.0", "The message could not be stored; try again later")
STORAGE_FULL = reply(452, "4.3.1", "No space to store the message; try again later")
FROM_NOT_YOURS = reply(550, "5.7.1", "The From field names an address that you may not send as")
SENDER_NOT_YOURS = reply(550, "5.7.1", "The Sender field names an address that you may not send as")
FROM_UNCLEAR = reply(550, "5.6.0", "The From field does not say who wrote the message")
SENDER_UNCLEAR = reply(550, "5.6.0", "The Sender field does not name one mailbox")
HEADER_MALFORMED = reply(550, "5.6.0", "A line of the header section is no field; an empty line must end the fields")
HEADER_TOO_LARGE = reply(554, "5.6.0", "The header section is larger than 256 KiB")
TOO_MANY_HOPS = reply(554, "5.4.6", "The message has passed 100 hosts: it loops")
IN_A_CIRCLE = reply(554, "5.4.6", "This alias led the message away before, and it came back: it loops")
