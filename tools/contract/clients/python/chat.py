"""Chats through the generated Python client: python chat.py <REST address>, with the client in PYTHONPATH."""

import sys
from uuid import uuid4

from fechatter_client import AuthenticatedClient, Client
from fechatter_client.api.auth import sign_up
from fechatter_client.api.chats import create_chat
from fechatter_client.api.messages import list_messages, send_message
from fechatter_client.models import AuthResponse, Chat, ChatDraft, ChatType, Message, MessageDraft, SignUp

address = sys.argv[1]
account = SignUp(
    fullname="Generated",
    email=f"{uuid4()}@python.test",
    password="correct horse battery staple",
    workspace="Generated Python",
)
signed_up = sign_up.sync(client=Client(address), body=account)
assert isinstance(signed_up, AuthResponse), signed_up

client = AuthenticatedClient(address, token=signed_up.access_token)
draft = ChatDraft(chat_type=ChatType.PUBLICCHANNEL, name=f"python {uuid4()}")
chat = create_chat.sync(client=client, body=draft)
assert isinstance(chat, Chat), chat

key = uuid4()
sent = send_message.sync(chat.id, client=client, body=MessageDraft(content="Hello", idempotency_key=key))
again = send_message.sync(chat.id, client=client, body=MessageDraft(content="Hello", idempotency_key=key))
assert isinstance(sent, Message) and again == sent, (sent, again)

page = list_messages.sync(chat.id, client=client, limit=10)
assert page == [sent], page
