/*
 * dispatchtest.c: the calls that are answered by us
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "dispatchcase.h"

static void
testCreate(void)
{
    TestDispatch test;
    const virCheckpointFrame *frame;
    g_auto(virCheckpointProtoDomainArgs) unused = {0};
    virCheckpointProtoCheckpoint reply = {0};

    testOpen(&test, "");
    g_assert_cmpint(testText(&test, 411, "<domaincheckpoint/>", 4), ==,
                    VIR_CHECKPOINT_VERDICT_TAKEN);
    frame = testAnswer(&test, 1, 411);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_OK);
    g_assert_true(
        testDecode((xdrproc_t)xdr_virCheckpointProtoCheckpoint, frame, &reply));
    g_assert_cmpstr(reply.name, ==, "made");
    /* The domain as it is called now, not as the client remembers it. */
    g_assert_cmpstr(reply.dom.name, ==, "now");
    g_assert_cmpint(reply.dom.id, ==, 7);
    xdr_free((xdrproc_t)xdr_virCheckpointProtoCheckpoint, (char *)&reply);
    testExpectLog(&test, "create " FAKE_UUID " <domaincheckpoint/> 4");
    testClose(&test);
}

static void
testDenied(void)
{
    static const gint named[] = {412, 416, 417};
    TestDispatch test;
    guint count = 0;
    gsize i;

    testOpen(&test, "ours");
    test.client->denied = VIR_ERR_ACCESS_DENIED;
    testText(&test, 411, "<domaincheckpoint/>", 0);
    testExpectError(&test, ++count, 411, VIR_ERR_ACCESS_DENIED,
                    VIR_CHECKPOINT_FROM_QEMU, "'QEMU' denied");
    for (i = 0; i < G_N_ELEMENTS(named); i++) {
        testNamed(&test, named[i], "ours", 0);
        testExpectError(&test, ++count, named[i], VIR_ERR_ACCESS_DENIED,
                        VIR_CHECKPOINT_FROM_QEMU, "'QEMU' denied");
    }
    testText(&test, 415, "ours", 0);
    testExpectError(&test, ++count, 415, VIR_ERR_ACCESS_DENIED,
                    VIR_CHECKPOINT_FROM_QEMU, "'QEMU' denied");
    testExpectLog(&test, "");
    testClose(&test);
}

static void
testEndedSession(void)
{
    TestDispatch test;

    testOpen(&test, "ours");
    test.client->ended = TRUE;
    testText(&test, 411, "<domaincheckpoint/>", 0);
    testNamed(&test, 417, "ours", 0);
    fakeWaitSent(test.client, 2);
    testExpectLog(&test, "");
    testClose(&test);
}

static void
testReadOnly(void)
{
    static const gint writes[] = {411, 417, 345, 237, 239, 9, 196, 35, 231, 13};
    TestDispatch test;
    gsize i;

    testOpen(&test, "ours");
    test.engine->disk = "vda";
    test.client->readOnly = TRUE;
    for (i = 0; i < G_N_ELEMENTS(writes); i++)
        g_assert_cmpint(testText(&test, writes[i], "x", 0), ==,
                        VIR_CHECKPOINT_VERDICT_FORWARD);
    g_assert_cmpint(testText(&test, 415, "ours", 0), ==, VIR_CHECKPOINT_VERDICT_TAKEN);
    testAnswer(&test, 1, 415);
    testExpectLog(&test, "");
    testClose(&test);
}

static void
testTheirs(void)
{
    static const gint named[] = {412, 416, 417};
    TestDispatch test;
    guint count = 0;
    gsize i;

    testOpen(&test, "ours");
    for (i = 0; i < G_N_ELEMENTS(named); i++) {
        const virCheckpointFrame *frame;

        testNamed(&test, named[i], "theirs", 0);
        frame = fakeWaitForwarded(test.client, ++count);
        g_assert_cmpint(frame->procedure, ==, named[i]);
        g_assert_cmpuint(frame->serial, ==, test.serial);
    }
    testText(&test, 415, "theirs", 0);
    fakeWaitForwarded(test.client, ++count);
    /* A redefine of what the engine does not know. */
    test.engine->failure = VIR_ERR_NO_DOMAIN_CHECKPOINT;
    testText(&test, 411, "<domaincheckpoint/>", 1);
    fakeWaitForwarded(test.client, ++count);
    g_assert_cmpuint(test.client->sent->len, ==, 0);
    testClose(&test);
}

static void
testMalformed(void)
{
    static const gint procedures[] = {411, 412, 413, 414, 415, 416, 417, 9, 231};
    TestDispatch test;
    gsize i;

    testOpen(&test, "ours");
    for (i = 0; i < G_N_ELEMENTS(procedures); i++) {
        const virCheckpointFrame *frame;

        testCallBytes(&test, procedures[i], g_bytes_new_static("\0\0\0\1", 4));
        frame = fakeWaitForwarded(test.client, (guint)i + 1);
        g_assert_cmpint(frame->procedure, ==, procedures[i]);
    }
    g_assert_cmpint(testCallBytes(&test, 345, g_bytes_new_static("\0\0\0\1", 4)), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    testExpectLog(&test, "");
    testClose(&test);
}

static gchar *
testListNames(TestDispatch *test, guint count, gint procedure, gint *ret)
{
    const virCheckpointFrame *frame = testAnswer(test, count, procedure);
    g_auto(virCheckpointProtoList) list = {0};
    GString *names = g_string_new(NULL);
    guint i;

    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_OK);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoList, frame, &list));
    for (i = 0; i < list.checkpoints.checkpoints_len; i++)
        g_string_append_printf(names, "%s%s", i ? " " : "",
                               list.checkpoints.checkpoints_val[i].name);
    *ret = list.ret;
    return g_string_free(names, FALSE);
}

static void
testList(void)
{
    static const struct {
        guint flags;
        const gchar *names;
    } cases[] = {
        {0, "theirs a b c d e"}, {1, "theirs a e"},   {2, "theirs a b c d e"},
        {4, "theirs c d e"},     {8, "theirs a b"},   {12, "theirs"},
        {1 | 4, "theirs e"},     {1 | 8, "theirs a"},
    };
    TestDispatch test;
    guint count = 0;
    gint ret;
    gsize i;

    testOpen(&test, "a b<a c<b d<a e<gone");
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        virCheckpointProtoListArgs args = {
            .dom = testDomain(), .need_results = 1, .flags = cases[i].flags};
        g_autofree gchar *names = NULL;

        testCallBytes(&test, 413,
                      virCheckpointWireEncode(virCheckpointProtoListArgs, &args));
        names = testListNames(&test, ++count, 413, &ret);
        g_assert_cmpstr(names, ==, cases[i].names);
    }
    {
        virCheckpointProtoListArgs args = {.dom = testDomain()};
        g_autofree gchar *none = NULL;

        testCallBytes(&test, 413,
                      virCheckpointWireEncode(virCheckpointProtoListArgs, &args));
        none = testListNames(&test, ++count, 413, &ret);
        g_assert_cmpstr(none, ==, "");
        g_assert_cmpint(ret, ==, 6);
    }
    testClose(&test);
}

static void
testChildren(void)
{
    static const struct {
        const gchar *name;
        guint flags;
        const gchar *names;
    } cases[] = {
        {"a", 0, "b d"},     {"a", 1, "b c d"}, {"b", 1, "c"}, {"c", 1, ""},
        {"a", 1 | 4, "c d"}, {"a", 1 | 8, "b"}, {"a", 8, "b"},
    };
    TestDispatch test;
    guint count = 0;
    gint ret;
    gsize i;

    testOpen(&test, "a b<a c<b d<a e<gone");
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        virCheckpointProtoChildrenArgs args = {
            .checkpoint = {.name = (gchar *)cases[i].name, .dom = testDomain()},
            .need_results = 1,
            .flags = cases[i].flags};
        g_autofree gchar *names = NULL;

        testCallBytes(&test, 414,
                      virCheckpointWireEncode(virCheckpointProtoChildrenArgs, &args));
        names = testListNames(&test, ++count, 414, &ret);
        g_assert_cmpstr(names, ==, cases[i].names);
    }
    testNamed(&test, 416, "c", 0);
    testAnswer(&test, ++count, 416);
    testNamed(&test, 416, "a", 0);
    testExpectError(
        &test, ++count, 416, VIR_ERR_NO_DOMAIN_CHECKPOINT, VIR_CHECKPOINT_FROM_QEMU,
        "Domain checkpoint not found: checkpoint 'a' does not have a parent");
    testClose(&test);
}

/* Backups. */

static void
testBackupCall(TestDispatch *test, const gchar *xml, const gchar *checkpoint)
{
    virCheckpointProtoString text = (gchar *)checkpoint;
    virCheckpointProtoBackup args = {.dom = testDomain(),
                                     .xml = (gchar *)xml,
                                     .checkpoint = checkpoint ? &text : NULL};

    testCallBytes(test, 421, virCheckpointWireEncode(virCheckpointProtoBackup, &args));
}

static void
testBackup(void)
{
    static const gchar since[] =
        "<domainbackup><incremental>a</incremental></domainbackup>";
    g_auto(virCheckpointProtoText) shown = {0};
    const virCheckpointFrame *frame;
    TestDispatch test;

    testOpen(&test, "a");
    testBackupCall(&test, "<domainbackup/>", "<domaincheckpoint/>");
    frame = testAnswer(&test, 1, 421);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_OK);
    testExpectLog(&test, "backup <domainbackup/> <domaincheckpoint/>");
    /* Libvirt's refusal, with the client's name. */
    testBackupCall(&test, since, NULL);
    testExpectError(&test, 2, 421, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    VIR_CHECKPOINT_FROM_QEMU, "Checkpoint 'a' not found");
    test.engine->failure = VIR_ERR_CHECKPOINT_INCONSISTENT;
    testBackupCall(&test, since, NULL);
    frame = testAnswer(&test, 3, 421);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_ERROR);
    test.engine->failure = 0;
    /* The job as the client described it. */
    testDomainFlags(&test, 422, 0);
    frame = testAnswer(&test, 4, 422);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoText, frame, &shown));
    g_assert_cmpstr(shown.text, ==, since);
    /* Libvirt's own, and a full one without checkpoint. */
    testBackupCall(&test, "<domainbackup><incremental>theirs</incremental>", NULL);
    fakeWaitForwarded(test.client, 1);
    testBackupCall(&test, "<domainbackup/>", NULL);
    g_assert_cmpuint(test.client->forwarded->len, ==, 1);
    /* Names that only libvirt knows. */
    testText(&test, 415, FAKE_BACKUP_NAME, 0);
    testExpectError(&test, 5, 415, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    VIR_CHECKPOINT_FROM_QEMU,
                    "Domain checkpoint not found: no domain checkpoint with matching "
                    "name '" FAKE_BACKUP_NAME "'");
    /* Who may not back up has nothing prepared. */
    g_free(fakeEngineLog(test.engine));
    test.client->denied = VIR_ERR_ACCESS_DENIED;
    testBackupCall(&test, since, NULL);
    frame = testAnswer(&test, 6, 421);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_ERROR);
    testExpectLog(&test, "");
    testClose(&test);
}

/* Block copies. */

static void
testCopy(void)
{
    virCheckpointProtoParam params[7] = {
        testString("bitmap", "c1"),
        testString("checkpoint", "c2"),
        testNumber("bandwidth", 4, G_GUINT64_CONSTANT(1) << 40),
        testNumber("finish", 6, 1),
        testNumber("verify", 6, 1),
        testNumber("granularity", 2, 65536),
        testNumber("buf-size", 4, 7),
    };
    TestDispatch test;

    testOpen(&test, "");
    g_assert_cmpint(testCopyCall(&test, params, 7, 2), ==,
                    VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testAnswer(&test, 1, 345)->status, ==, VIR_CHECKPOINT_FRAME_OK);
    testExpectLog(&test, "mirror vda bitmap=c1 checkpoint=c2 finish=1 verify "
                         "bandwidth=1099511627776 granularity=65536 buf=7 flags=2");
    /* Not ours. */
    g_assert_cmpint(testCopyCall(&test, &params[2], 1, 2), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    testClose(&test);
}

static void
testCopyRefused(void)
{
    virCheckpointProtoParam wrong[] = {testNumber("bitmap", 4, 1)};
    virCheckpointProtoParam twice[] = {testString("checkpoint", "a"),
                                       testString("checkpoint", "b")};
    virCheckpointProtoParam finish[] = {testNumber("finish", 6, 1)};
    virCheckpointProtoParam bitmap[] = {testString("bitmap", "a")};
    const struct {
        virCheckpointProtoParam *params;
        guint n;
        const gchar *message;
    } cases[] = {
        {wrong, 1,
         "invalid argument: invalid type 'ullong' for parameter 'bitmap', expected "
         "'string'"},
        {twice, 2, "invalid argument: parameter 'checkpoint' occurs multiple times"},
        {finish, 1,
         "invalid argument: parameter 'finish' needs parameter 'bitmap' or "
         "'checkpoint'"},
        {bitmap, 1,
         "invalid argument: parameter 'bitmap' needs flag "
         "VIR_DOMAIN_BLOCK_COPY_REUSE_EXT: the target must exist and hold the disk as "
         "of that checkpoint"},
    };
    TestDispatch test;
    gsize i;

    testOpen(&test, "");
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        testCopyCall(&test, cases[i].params, cases[i].n, 0);
        testExpectError(&test, (guint)i + 1, 345, VIR_ERR_INVALID_ARG,
                        VIR_CHECKPOINT_FROM_NONE, cases[i].message);
    }
    /* What libvirt finds wrong with the other parameters is passed on. */
    test.client->denied = VIR_ERR_ARGUMENT_UNSUPPORTED;
    test.client->deniedText = "parameter 'zzz' not supported";
    testCopyCall(&test, bitmap, 1, 2);
    testExpectError(&test, (guint)i + 1, 345, VIR_ERR_ARGUMENT_UNSUPPORTED,
                    VIR_CHECKPOINT_FROM_QEMU, "parameter 'zzz' not supported");
    testExpectLog(&test, "");
    testClose(&test);
}

/* Jobs. */

static void
testJobs(void)
{
    TestDispatch test;
    const virCheckpointFrame *frame;
    g_auto(virCheckpointProtoJobInfo) info = {0};

    testOpen(&test, "");
    g_assert_cmpint(testText(&test, 238, "vda", 0), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    test.engine->disk = "vda";
    g_assert_cmpint(testText(&test, 238, "vdb", 0), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    testText(&test, 238, "vda", 0);
    frame = testAnswer(&test, 1, 238);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoJobInfo, frame, &info));
    g_assert_cmpint(info.found, ==, 1);
    g_assert_cmpint(info.type, ==, 2);
    g_assert_cmpuint(info.bandwidth, ==, 2); /* MiB/s, rounded up */
    g_assert_cmpuint(info.end, ==, 9);
    testText(&test, 238, "vda", 1);
    frame = testAnswer(&test, 2, 238);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoJobInfo, frame, &info));
    g_assert_cmpuint(info.bandwidth, ==, 1048577);
    testRate(&test, 239, 3, 0);
    testAnswer(&test, 3, 239);
    testRate(&test, 239, 3, 1);
    testAnswer(&test, 4, 239);
    testRate(&test, 239, G_GUINT64_CONSTANT(1) << 60, 0);
    testExpectError(&test, 5, 239, VIR_ERR_OVERFLOW, VIR_CHECKPOINT_FROM_QEMU,
                    "numerical overflow: bandwidth must be less than 8796093022207");
    testText(&test, 237, "vda", 2);
    testAnswer(&test, 6, 237);
    testExpectLog(&test, "info vda|info vda|speed vda 3145728|speed vda 3|abort vda 2");
    /* The mirror ends meanwhile: libvirt has the usual answer. */
    test.engine->gone = TRUE;
    testText(&test, 237, "vda", 0);
    fakeWaitForwarded(test.client, 1);
    testRate(&test, 239, 3, 0);
    fakeWaitForwarded(test.client, 2);
    testText(&test, 238, "vda", 0);
    fakeWaitForwarded(test.client, 3);
    testClose(&test);
}

static void
testJobsDenied(void)
{
    TestDispatch test;

    testOpen(&test, "");
    test.engine->disk = "vda";
    test.client->denied = VIR_ERR_ACCESS_DENIED;
    testText(&test, 237, "vda", 2);
    testAnswer(&test, 1, 237);
    testRate(&test, 239, 3, 0);
    testAnswer(&test, 2, 239);
    testText(&test, 238, "vda", 0);
    testAnswer(&test, 3, 238);
    testExpectLog(&test, "");
    testClose(&test);
}

static void
testStuckClient(void)
{
    TestDispatch test;
    virCheckpointClient *other = fakeClientNew();
    const virCheckpointClientHooks *hooks = virCheckpointDispatchHooks();
    guint i;

    testOpen(&test, "ours");
    test.engine->hold = TRUE;
    test.engine->disk = "vda";
    for (i = 0; i < 40; i++)
        testText(&test, 411, "<domaincheckpoint/>", 0);
    /* Its own queries and aborts, and another client's creates, are not behind them. */
    testText(&test, 415, "ours", 0);
    testAnswer(&test, 1, 415);
    testText(&test, 237, "vda", 0);
    testAnswer(&test, 2, 237);
    {
        virCheckpointProtoCheckpointFlags args = {
            .checkpoint = {.name = (gchar *)"ours", .dom = testDomain()}};
        g_autoptr(virCheckpointFrame) frame = fakeCall(
            417, 1, virCheckpointWireEncode(virCheckpointProtoCheckpointFlags, &args));

        hooks->call(other, frame, test.dispatch);
        fakeWaitSent(other, 1);
    }
    g_mutex_lock(&test.engine->lock);
    test.engine->hold = FALSE;
    g_cond_broadcast(&test.engine->changed);
    g_mutex_unlock(&test.engine->lock);
    fakeWaitSent(test.client, 42);
    hooks->closed(other, test.dispatch);
    testClose(&test);
    virCheckpointClientUnref(other);
}

static void
testOtherTraffic(void)
{
    TestDispatch test;
    g_autoptr(virCheckpointFrame) frame = NULL;

    testOpen(&test, "ours");
    g_assert_cmpint(testDomainFlags(&test, 14, 0), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    g_assert_cmpint(testDomainFlags(&test, 9999, 0), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    frame = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_QEMU, 411,
                                  VIR_CHECKPOINT_FRAME_CALL, 1, VIR_CHECKPOINT_FRAME_OK,
                                  NULL, 0);
    g_assert_cmpint(
        virCheckpointDispatchHooks()->call(test.client, frame, test.dispatch), ==,
        VIR_CHECKPOINT_VERDICT_FORWARD);
    testClose(&test);
}

/* A monitor command. */
static virCheckpointVerdict
testCommand(TestDispatch *test, const gchar *text, guint flags)
{
    virCheckpointProtoDomainTextFlags args = {
        .dom = testDomain(), .text = (gchar *)text, .flags = flags};
    g_autoptr(GBytes) bytes =
        virCheckpointWireEncode(virCheckpointProtoDomainTextFlags, &args);
    g_autoptr(virCheckpointFrame) frame = virCheckpointFrameNew(
        VIR_CHECKPOINT_PROGRAM_QEMU, VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND,
        VIR_CHECKPOINT_FRAME_CALL, ++test->serial, VIR_CHECKPOINT_FRAME_OK,
        g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));

    return virCheckpointDispatchHooks()->call(test->client, frame, test->dispatch);
}

static void
testCommandAnswered(void)
{
    TestDispatch test;
    const virCheckpointFrame *frame;
    g_auto(virCheckpointProtoText) reply = {0};

    testOpen(&test, "ours");
    g_assert_cmpint(testCommand(&test, "{\"execute\":\"virtcheckpoint-check\"}", 0), ==,
                    VIR_CHECKPOINT_VERDICT_TAKEN);
    frame = testAnswer(&test, 1, VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND);
    g_assert_cmpuint(frame->program, ==, VIR_CHECKPOINT_PROGRAM_QEMU);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_OK);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoText, frame, &reply));
    g_assert_cmpstr(reply.text, ==, "{\"return\":{\"health\":\"healthy\"}}");
    testCommand(&test,
                "{\"execute\":\"virtcheckpoint-heal\",\"arguments\":{\"disk\":\"vda\","
                "\"against\":\"<disk/>\",\"checkpoint\":\"c1\"}}",
                0);
    testAnswer(&test, 2, VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND);
    testCommand(&test,
                "{\"execute\":\"virtcheckpoint-query-heal\",\"arguments\":{\"disk\":"
                "\"vda\"}}",
                0);
    testAnswer(&test, 3, VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND);
    testCommand(&test, "{\"execute\":\"virtcheckpoint-cancel-heal\"}", 0);
    testExpectError(&test, 4, VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND,
                    VIR_ERR_INVALID_ARG, VIR_CHECKPOINT_FROM_QEMU,
                    "invalid argument: 'disk' is missing");
    testExpectLog(&test, "check " FAKE_UUID "|heal " FAKE_UUID
                         " vda <disk/> c1|query-heal " FAKE_UUID " vda");
    testClose(&test);
}

static void
testCommandRefused(void)
{
    static const gchar *const others[] = {
        "{\"execute\":\"query-block\"}",
        "{\"execute\":\"x\",\"arguments\":{\"id\":\"virtcheckpoint-check\"}}",
        "{\"execute\":\"virtcheckpoint-check\"",
        "virtcheckpoint-check",
    };
    const gint number = VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND;
    TestDispatch test;
    guint count = 0;
    gsize i;

    testOpen(&test, "ours");
    for (i = 0; i < G_N_ELEMENTS(others); i++) {
        if (testCommand(&test, others[i], 0) == VIR_CHECKPOINT_VERDICT_TAKEN)
            fakeWaitForwarded(test.client, ++count);
    }
    g_assert_cmpint(testCommand(&test, "virtcheckpoint-check", 1), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    testCommand(&test, "{\"execute\":\"virtcheckpoint-nosuch\"}", 0);
    testExpectError(&test, 1, number, VIR_ERR_NO_SUPPORT, VIR_CHECKPOINT_FROM_QEMU,
                    "this function is not supported by the connection driver: "
                    "virtcheckpointd has no command 'virtcheckpoint-nosuch'");
    testCommand(&test, "{\"execute\":\"virtcheckpoint-check\",\"arguments\":{\"x\":1}}",
                0);
    testExpectError(&test, 2, number, VIR_ERR_INVALID_ARG, VIR_CHECKPOINT_FROM_QEMU,
                    "invalid argument: parameter 'x' of virtcheckpoint-check is "
                    "unexpected or not a string");
    test.client->denied = VIR_ERR_ACCESS_DENIED;
    testCommand(&test, "{\"execute\":\"virtcheckpoint-check\"}", 0);
    testExpectError(&test, 3, number, VIR_ERR_ACCESS_DENIED, VIR_CHECKPOINT_FROM_QEMU,
                    "'QEMU' denied");
    test.client->readOnly = TRUE;
    g_assert_cmpint(testCommand(&test, "{\"execute\":\"virtcheckpoint-check\"}", 0), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    testExpectLog(&test, "");
    testClose(&test);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dispatch/create-answers-with-the-domain-of-now", testCreate);
    g_test_add_func("/dispatch/what-libvirt-denies-is-not-done", testDenied);
    g_test_add_func("/dispatch/nothing-is-done-for-a-session-that-ended",
                    testEndedSession);
    g_test_add_func("/dispatch/read-only-writes-are-libvirts-to-refuse", testReadOnly);
    g_test_add_func("/dispatch/checkpoints-of-libvirts-are-passed-on", testTheirs);
    g_test_add_func("/dispatch/malformed-calls-are-passed-on", testMalformed);
    g_test_add_func("/dispatch/list-merges-and-filters", testList);
    g_test_add_func("/dispatch/children-and-parents", testChildren);
    g_test_add_func("/dispatch/backup", testBackup);
    g_test_add_func("/dispatch/copy-with-our-parameters", testCopy);
    g_test_add_func("/dispatch/copy-with-wrong-parameters", testCopyRefused);
    g_test_add_func("/dispatch/job-info-speed-abort", testJobs);
    g_test_add_func("/dispatch/jobs-are-denied-as-libvirt-denies", testJobsDenied);
    g_test_add_func("/dispatch/one-stuck-client-holds-nobody-else", testStuckClient);
    g_test_add_func("/dispatch/monitor-commands-of-ours-are-answered",
                    testCommandAnswered);
    g_test_add_func("/dispatch/other-monitor-commands-are-passed-on",
                    testCommandRefused);
    g_test_add_func("/dispatch/other-traffic-is-left-alone", testOtherTraffic);
    return g_test_run();
}
