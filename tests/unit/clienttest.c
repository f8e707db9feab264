/*
 * clienttest.c: what a session lets an extension see and do
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "remotetestlib.h"

#define CREATE_XML 411
#define LIST_ALL 413

/* An extension that takes procedure 411, watches 413, and counts. */
typedef struct testExtension {
    guint calls;
    guint replies;
    guint messages;
    guint closed;
    guint tagsFreed;
    gboolean readOnly;
    virCheckpointVerdict replyVerdict;
    virCheckpointVerdict messageVerdict;
    virCheckpointFrame *taken;
} testExtension;

static testExtension *testTagged;

static void
testTagFree(gpointer tag)
{
    g_assert_true(tag == testTagged);
    testTagged->tagsFreed++;
}

static virCheckpointVerdict
testHookCall(virCheckpointClient *client,
             const virCheckpointFrame *frame,
             gpointer data)
{
    testExtension *extension = data;

    extension->calls++;
    extension->readOnly = virCheckpointClientIsReadOnly(client);
    if (frame->procedure == LIST_ALL) {
        testTagged = extension;
        virCheckpointClientWatch(client, frame, extension, testTagFree);
    }
    if (frame->procedure != CREATE_XML)
        return VIR_CHECKPOINT_VERDICT_FORWARD;

    virCheckpointFrameFree(extension->taken);
    extension->taken = virCheckpointFrameCopy(frame);
    return VIR_CHECKPOINT_VERDICT_TAKEN;
}

static virCheckpointVerdict
testHookReply(virCheckpointClient *client,
              const virCheckpointFrame *frame,
              gpointer tag,
              gpointer data)
{
    testExtension *extension = data;

    g_assert_true(tag == data);
    g_assert_cmpint(frame->procedure, ==, LIST_ALL);
    extension->replies++;
    return extension->replyVerdict;
}

static virCheckpointVerdict
testHookMessage(virCheckpointClient *client,
                const virCheckpointFrame *frame,
                gpointer data)
{
    testExtension *extension = data;

    extension->messages++;
    return extension->messageVerdict;
}

static void
testHookClosed(virCheckpointClient *client, gpointer data)
{
    ((testExtension *)data)->closed++;
}

static const virCheckpointClientHooks testHooks = {
    .call = testHookCall,
    .reply = testHookReply,
    .message = testHookMessage,
    .closed = testHookClosed,
};

static void
testExtensionClear(testExtension *extension)
{
    g_assert_cmpuint(extension->closed, ==, 1);
    virCheckpointFrameFree(extension->taken);
}

static GByteArray *
testCall(gint32 procedure, guint32 serial)
{
    return testPacket(VIR_CHECKPOINT_PROGRAM_REMOTE, procedure,
                      VIR_CHECKPOINT_FRAME_CALL, serial, 8, 0x11);
}

static GByteArray *
testReply(gint32 procedure, guint32 serial)
{
    return testPacket(VIR_CHECKPOINT_PROGRAM_REMOTE, procedure,
                      VIR_CHECKPOINT_FRAME_REPLY, serial, 4, 0x22);
}

static void
testPass(int from, int to, GByteArray *bytes)
{
    g_autoptr(GByteArray) owned = bytes;

    testSendBytes(from, owned);
    testExpect(to, owned);
}

/* Before OPEN, and on a connection of another driver, nobody sees a call. */
static void
testOnlyQemu(void)
{
    testExtension extension = {0};
    testSession session;

    testSessionStart(&session, 0, &testHooks, &extension);
    testPass(session.peer, session.backend, testCall(CREATE_XML, 1));
    testSessionOpen(&session, "network", TRUE);
    testPass(session.peer, session.backend, testCall(CREATE_XML, 3));
    testPass(session.backend, session.peer, testReply(CREATE_XML, 3));
    testPass(session.backend, session.peer, testBytes(TEST_BLOCK_JOB_EVENT));
    g_assert_cmpuint(extension.calls + extension.replies + extension.messages, ==, 0);
    testSessionStop(&session);
    testExtensionClear(&extension);
}

static void
testTaken(void)
{
    testExtension extension = {0};
    testSession session;
    g_autoptr(GByteArray) taken = testCall(CREATE_XML, 7);
    g_autoptr(GByteArray) reply = NULL;
    virCheckpointFrame *frame = NULL;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    testPass(session.peer, session.backend, testCall(14, 6));
    testSendBytes(session.peer, taken);
    testPass(session.peer, session.backend, testCall(14, 8));
    g_assert_cmpuint(extension.calls, ==, 3);
    g_assert_true(virCheckpointClientIsBusy(session.client));
    g_assert_false(extension.readOnly);

    frame = virCheckpointFrameNewError(extension.taken, 42, 10, "no");
    reply = g_byte_array_ref(frame->bytes);
    virCheckpointClientSend(session.client, frame);
    testExpect(session.peer, reply);
    g_assert_false(virCheckpointClientIsBusy(session.client));

    /* Taken, then forwarded after all. */
    testSendBytes(session.peer, taken);
    testExpectNothing(session.backend);
    virCheckpointClientForward(session.client, virCheckpointFrameCopy(extension.taken));
    testExpect(session.backend, taken);
    g_assert_false(virCheckpointClientIsBusy(session.client));
    testSessionStop(&session);
    testExtensionClear(&extension);
}

static void
testWatch(void)
{
    testExtension extension = {0};
    testSession session;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    testPass(session.peer, session.backend, testCall(LIST_ALL, 7));
    testPass(session.peer, session.backend, testCall(LIST_ALL, 8));
    testPass(session.peer, session.backend, testCall(LIST_ALL, 9));
    testPass(session.backend, session.peer, testReply(14, 7)); /* another procedure */
    testPass(session.backend, session.peer, testReply(LIST_ALL, 8));
    g_assert_cmpuint(extension.replies, ==, 1);
    extension.replyVerdict = VIR_CHECKPOINT_VERDICT_TAKEN;
    {
        g_autoptr(GByteArray) swallowed = testReply(LIST_ALL, 7);

        testSendBytes(session.backend, swallowed);
        testExpectNothing(session.peer);
    }
    g_assert_cmpuint(extension.replies, ==, 2);
    testPass(session.backend, session.peer,
             testReply(LIST_ALL, 7)); /* not watched now */
    g_assert_cmpuint(extension.tagsFreed, ==, 2);
    testSessionStop(&session);
    g_assert_cmpuint(extension.tagsFreed, ==, 3);
    testExtensionClear(&extension);
}

static void
testMessages(void)
{
    testExtension extension = {0};
    testSession session;
    g_autoptr(GByteArray) event = testBytes(TEST_BLOCK_JOB_EVENT);

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    testPass(session.backend, session.peer, testBytes(TEST_BLOCK_JOB_EVENT));
    testPass(session.backend, session.peer, testBytes(TEST_PING));
    testPass(session.backend, session.peer, testBytes(TEST_HOLE));
    g_assert_cmpuint(extension.messages, ==, 1);
    extension.messageVerdict = VIR_CHECKPOINT_VERDICT_TAKEN;
    testSendBytes(session.backend, event);
    testExpectNothing(session.peer);
    testSessionStop(&session);
    testExtensionClear(&extension);
}

/* While OPEN is under way, and until the driver is known, nothing overtakes it. */
static void
testHeldDuringOpen(void)
{
    testExtension extension = {0};
    testSession session;
    g_autoptr(GByteArray) open =
        testBytes("00000028 20008086 00000001 00000001 00000000 00000002 00000000 "
                  "00000001 00000000 00000000");
    g_autoptr(GByteArray) bad =
        testBytes("0000001c 20008086 00000001 00000001 00000001 00000002 00000001");
    g_autoptr(GByteArray) good =
        testBytes("0000001c 20008086 00000001 00000001 00000001 00000002 00000000");
    g_autoptr(GByteArray) ask =
        testBytes("0000001c 20008086 00000001 00000003 00000000 80000000 00000000");
    g_autoptr(GByteArray) type =
        testBytes("00000024 20008086 00000001 00000003 00000001 80000000 00000000 "
                  "00000004 51454d55");
    g_autoptr(GByteArray) call = testCall(CREATE_XML, 3);

    testSessionStart(&session, 0, &testHooks, &extension);
    testSendBytes(session.peer, open);
    testSendBytes(session.peer, open);
    testExpect(session.backend, open);
    testExpectNothing(session.backend);
    /* A failed OPEN sets the client free, and the next one counts. */
    testPass(session.backend, session.peer, g_byte_array_ref(bad));
    testExpect(session.backend, open);
    testSendBytes(session.peer, call);
    testPass(session.backend, session.peer, g_byte_array_ref(good));
    testExpect(session.backend, ask);
    testExpectNothing(session.backend);
    g_assert_cmpuint(extension.calls, ==, 0);
    testSendBytes(session.backend, type);
    testExpectNothing(session.peer);
    g_assert_cmpuint(extension.calls, ==, 1);
    testSessionStop(&session);
    testExtensionClear(&extension);
}

static void
testReadOnly(void)
{
    testExtension extension = {0};
    testSession session;
    g_autoptr(GByteArray) call =
        testBytes("00000028 20008086 00000001 00000001 00000000 00000002 00000000 "
                  "00000001 00000000 00000002");
    g_autoptr(GByteArray) forced =
        testBytes("00000028 20008086 00000001 00000001 00000000 00000002 00000000 "
                  "00000001 00000000 00000003");
    g_autoptr(GByteArray) withFds =
        testBytes("0000002c 20008086 00000001 00000001 00000004 00000002 00000000 "
                  "00000000 00000001 00000000 00000000");
    g_autoptr(GByteArray) withFdsForced =
        testBytes("0000002c 20008086 00000001 00000001 00000004 00000002 00000000 "
                  "00000000 00000001 00000000 00000001");
    g_autoptr(GByteArray) reply =
        testBytes("0000001c 20008086 00000001 00000001 00000001 00000002 00000001");
    g_autoptr(GByteArray) broken = testBytes(
        "00000020 20008086 00000001 00000001 00000000 00000002 00000000 00000001");

    /* The flag of the client itself. */
    testSessionStart(&session, 0, &testHooks, &extension);
    testSendBytes(session.peer, forced);
    testExpect(session.backend, forced);
    reply->data[27] = 0;
    testSendBytes(session.backend, reply);
    testExpect(session.peer, reply);
    reply->data[27] = 1;
    g_assert_true(virCheckpointClientIsReadOnly(session.client));
    testSessionStop(&session);

    /* The read-only socket, on a backend that has none. */
    testSessionStart(&session,
                     VIR_CHECKPOINT_CLIENT_READ_ONLY |
                         VIR_CHECKPOINT_CLIENT_FORCE_READ_ONLY,
                     NULL, NULL);
    g_assert_true(virCheckpointClientIsReadOnly(session.client));
    testSendBytes(session.peer, call);
    testExpect(session.backend, forced);
    testSendBytes(session.backend, reply);
    testSendBytes(session.peer, withFds);
    testExpect(session.backend, withFdsForced);
    testSendBytes(session.backend, reply);
    testSendBytes(session.peer, broken);
    testSessionWaitEnd(&session);
    testExpectEnd(session.backend);
    testSessionStop(&session);
}

/* Questions of workers. */

typedef struct testAsker {
    virCheckpointClient *client;
    gint32 procedure;
    virCheckpointFrame *reply;
    gint done; /* atomic */
} testAsker;

static gpointer
testAskThread(gpointer data)
{
    testAsker *asker = data;

    asker->reply =
        virCheckpointClientAsk(asker->client, VIR_CHECKPOINT_PROGRAM_REMOTE,
                               asker->procedure, (const guint8 *)"\0\0\0\1", 4);
    g_atomic_int_set(&asker->done, TRUE);
    g_main_context_wakeup(NULL);
    return NULL;
}

static GThread *
testAskStart(testAsker *asker, testSession *session, gint32 procedure)
{
    memset(asker, 0, sizeof(*asker));
    asker->client = session->client;
    asker->procedure = procedure;
    return g_thread_new("ask", testAskThread, asker);
}

static void
testAskJoin(testAsker *asker, GThread *thread)
{
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;

    while (!g_atomic_int_get(&asker->done)) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, TRUE);
    }
    g_thread_join(thread);
}

/* Reads the question at the backend; returns its serial. */
static guint32
testReadAsk(testSession *session, gint32 procedure)
{
    g_autoptr(GByteArray) got = testReceive(session->backend, 32);

    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 12), ==, (guint32)procedure);
    return virCheckpointFrameGetWord(got->data + 20);
}

static void
testAsk(void)
{
    testExtension extension = {0};
    testSession session;
    testAsker one;
    testAsker two;
    GThread *first = NULL;
    GThread *second = NULL;
    guint32 serialOne = 0;
    guint32 serialTwo = 0;
    g_autoptr(GByteArray) replyOne = NULL;
    g_autoptr(GByteArray) replyTwo = NULL;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    first = testAskStart(&one, &session, 14);
    serialOne = testReadAsk(&session, 14);
    second = testAskStart(&two, &session, 23);
    serialTwo = testReadAsk(&session, 23);
    g_assert_cmpuint(serialOne, >, 0x80000000U);
    g_assert_cmpuint(serialTwo, !=, serialOne);

    /* Out of order, and a reply of the client's own in between. */
    replyTwo = testReply(23, serialTwo);
    testSendBytes(session.backend, replyTwo);
    testPass(session.backend, session.peer, testReply(14, 5));
    testAskJoin(&two, second);
    replyOne = testReply(14, serialOne);
    testSendBytes(session.backend, replyOne);
    testAskJoin(&one, first);
    testExpectNothing(session.peer);
    g_assert_cmpmem(one.reply->bytes->data, one.reply->bytes->len, replyOne->data,
                    replyOne->len);
    g_assert_cmpuint(two.reply->serial, ==, serialTwo);
    virCheckpointFrameFree(one.reply);
    virCheckpointFrameFree(two.reply);
    testSessionStop(&session);
    testExtensionClear(&extension);
}

/* A client that counts where we do is neither mixed up with us nor delayed for long. */
static void
testAskSameSerials(void)
{
    testExtension extension = {0};
    testSession session;
    testAsker asker;
    GThread *thread = NULL;
    guint32 serial = 0;
    g_autoptr(GByteArray) late = NULL;
    g_autoptr(GByteArray) reply = NULL;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    /* Calls of the client in flight: their serials are passed over. */
    testPass(session.peer, session.backend, testCall(14, 0x80000001U));
    testPass(session.peer, session.backend, testCall(14, 0x80000002U));
    thread = testAskStart(&asker, &session, 14);
    serial = testReadAsk(&session, 14);
    g_assert_cmpuint(serial, ==, 0x80000003U);
    testPass(session.backend, session.peer, testReply(14, 0x80000001U));

    /* A call with the serial of ours waits until ours has its reply. */
    late = testCall(14, serial);
    testSendBytes(session.peer, late);
    testExpectNothing(session.backend);
    reply = testReply(14, serial);
    testSendBytes(session.backend, reply);
    testExpect(session.backend, late);
    testAskJoin(&asker, thread);
    testExpectNothing(session.peer);
    virCheckpointFrameFree(asker.reply);
    testPass(session.backend, session.peer, testReply(14, serial));
    testSessionStop(&session);
    testExtensionClear(&extension);
}

/* The end of the session wakes who waits, and later ones do not wait at all. */
static void
testAskEnds(void)
{
    testExtension extension = {0};
    testSession session;
    testAsker asker;
    GThread *thread = NULL;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    thread = testAskStart(&asker, &session, 14);
    testReadAsk(&session, 14);
    close(session.backend);
    session.backend = -1;
    testAskJoin(&asker, thread);
    g_assert_null(asker.reply);
    testSessionWaitEnd(&session);
    thread = testAskStart(&asker, &session, 14);
    testAskJoin(&asker, thread);
    g_assert_null(asker.reply);
    virCheckpointClientSend(session.client,
                            virCheckpointFrameNewFromBytes(testBytes(TEST_PING)));
    testSessionStop(&session);
    testExtensionClear(&extension);
}

/* A client that asks and asks without reading the answers is not read from. */
static void
testTakenLimit(void)
{
    testExtension extension = {0};
    testSession session;
    guint serial;

    testSessionStart(&session, 0, &testHooks, &extension);
    testSessionOpen(&session, "QEMU", TRUE);
    for (serial = 1; serial <= 100; serial++) {
        g_autoptr(GByteArray) call = testCall(CREATE_XML, serial);

        testSendBytes(session.peer, call);
        testSettle();
    }
    g_assert_cmpuint(extension.calls, ==, 32);
    for (serial = 1; serial <= 100; serial++) {
        g_autoptr(GByteArray) reply = testReply(CREATE_XML, serial);

        virCheckpointClientSend(
            session.client, virCheckpointFrameNewFromBytes(g_byte_array_ref(reply)));
        testExpect(session.peer, reply);
        testSettle();
    }
    g_assert_cmpuint(extension.calls, ==, 100);
    testSessionStop(&session);
    testExtensionClear(&extension);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/client/only-open-qemu-connections", testOnlyQemu);
    g_test_add_func("/client/taken-calls", testTaken);
    g_test_add_func("/client/watched-replies", testWatch);
    g_test_add_func("/client/messages", testMessages);
    g_test_add_func("/client/held-during-open", testHeldDuringOpen);
    g_test_add_func("/client/read-only", testReadOnly);
    g_test_add_func("/client/ask", testAsk);
    g_test_add_func("/client/ask-with-the-clients-serials", testAskSameSerials);
    g_test_add_func("/client/ask-ends-with-the-session", testAskEnds);
    g_test_add_func("/client/taken-limit", testTakenLimit);
    return g_test_run();
}
