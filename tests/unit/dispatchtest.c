/*
 * dispatchtest.c: the calls that are answered by us
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "dispatchfake.h"

#include <string.h>

typedef struct TestDispatch {
    virCheckpointEngine *engine;
    virCheckpointDispatch *dispatch;
    virCheckpointClient *client;
    guint serial;
} TestDispatch;

static void
testOpen(TestDispatch *test, const gchar *names)
{
    memset(test, 0, sizeof(*test));
    test->engine = fakeEngineNew(names);
    test->dispatch = virCheckpointDispatchNew(test->engine);
    test->engine->dispatch = test->dispatch;
    test->client = fakeClientNew();
}

static void
testClose(TestDispatch *test)
{
    virCheckpointDispatchHooks()->closed(test->client, test->dispatch);
    virCheckpointDispatchFree(test->dispatch);
    virCheckpointClientUnref(test->client);
    fakeEngineFree(test->engine);
}

static virCheckpointProtoDomain
testDomain(void)
{
    virCheckpointProtoDomain dom = {.name = (gchar *)"stale", .id = -1};

    virCheckpointWireUuidParse(FAKE_UUID, dom.uuid);
    return dom;
}

static virCheckpointVerdict
testCallBytes(TestDispatch *test, gint procedure, GBytes *bytes)
{
    g_autoptr(virCheckpointFrame) frame = fakeCall(procedure, ++test->serial, bytes);

    return virCheckpointDispatchHooks()->call(test->client, frame, test->dispatch);
}

static virCheckpointVerdict
testText(TestDispatch *test, gint procedure, const gchar *text, guint flags)
{
    virCheckpointProtoDomainTextFlags args = {
        .dom = testDomain(), .text = (gchar *)text, .flags = flags};

    return testCallBytes(
        test, procedure,
        virCheckpointWireEncode(virCheckpointProtoDomainTextFlags, &args));
}

static virCheckpointVerdict
testNamed(TestDispatch *test, gint procedure, const gchar *name, guint flags)
{
    virCheckpointProtoCheckpointFlags args = {
        .checkpoint = {.name = (gchar *)name, .dom = testDomain()}, .flags = flags};

    return testCallBytes(
        test, procedure,
        virCheckpointWireEncode(virCheckpointProtoCheckpointFlags, &args));
}

static virCheckpointVerdict
testDomainFlags(TestDispatch *test, gint procedure, guint flags)
{
    virCheckpointProtoDomainFlags args = {.dom = testDomain(), .flags = flags};

    return testCallBytes(test, procedure,
                         virCheckpointWireEncode(virCheckpointProtoDomainFlags, &args));
}

/** The @count-th answer, checked to be one of the @count-th call. */
static const virCheckpointFrame *
testAnswer(TestDispatch *test, guint count, gint procedure)
{
    const virCheckpointFrame *frame = fakeWaitSent(test->client, count);

    g_assert_cmpint(frame->type, ==, VIR_CHECKPOINT_FRAME_REPLY);
    g_assert_cmpint(frame->procedure, ==, procedure);
    g_assert_cmpuint(frame->serial, ==, test->serial);
    g_assert_cmpuint(frame->version, ==, 1);
    return frame;
}

static gboolean
testDecode(xdrproc_t proc, const virCheckpointFrame *frame, gpointer out)
{
    gsize length;
    const guint8 *payload = virCheckpointFramePayload(frame, &length);

    return virCheckpointWireDecodeRaw(proc, payload, length, out);
}

static void
testExpectError(TestDispatch *test,
                guint count,
                gint procedure,
                gint code,
                gint from,
                const gchar *message)
{
    const virCheckpointFrame *frame = testAnswer(test, count, procedure);
    g_auto(virCheckpointProtoError) error = {0};

    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_ERROR);
    g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoError, frame, &error));
    g_assert_cmpint(error.code, ==, code);
    g_assert_cmpint(error.domain, ==, from);
    g_assert_cmpint(error.level, ==, 2);
    g_assert_cmpstr(virCheckpointWireOptString(error.message), ==, message);
}

static void
testExpectLog(TestDispatch *test, const gchar *want)
{
    g_autofree gchar *log = fakeEngineLog(test->engine);

    g_assert_cmpstr(log, ==, want);
}

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

/* Block copies. */

static virCheckpointProtoParam
testString(const gchar *field, const gchar *text)
{
    virCheckpointProtoParam param = {.field = (gchar *)field, .value = {.type = 7}};

    param.value.virCheckpointProtoValue_u.s = (gchar *)text;
    return param;
}

static virCheckpointProtoParam
testNumber(const gchar *field, gint type, guint64 number)
{
    virCheckpointProtoParam param = {.field = (gchar *)field, .value = {.type = type}};

    if (type == VIR_TYPED_PARAM_ULLONG)
        param.value.virCheckpointProtoValue_u.ul = number;
    else
        param.value.virCheckpointProtoValue_u.i = (gint)number;
    return param;
}

static virCheckpointVerdict
testCopyCall(TestDispatch *test, virCheckpointProtoParam *params, guint n, guint flags)
{
    virCheckpointProtoCopy args = {.dom = testDomain(),
                                   .path = (gchar *)"vda",
                                   .destxml = (gchar *)"<disk/>",
                                   .flags = flags};

    args.params.params_val = params;
    args.params.params_len = n;
    return testCallBytes(test, 345,
                         virCheckpointWireEncode(virCheckpointProtoCopy, &args));
}

static void
testCopy(void)
{
    virCheckpointProtoParam params[6] = {
        testString("bitmap", "c1"),
        testString("checkpoint", "c2"),
        testNumber("bandwidth", 4, G_GUINT64_CONSTANT(1) << 40),
        testNumber("finish", 6, 1),
        testNumber("granularity", 2, 65536),
        testNumber("buf-size", 4, 7),
    };
    TestDispatch test;

    testOpen(&test, "");
    g_assert_cmpint(testCopyCall(&test, params, 6, 2), ==,
                    VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testAnswer(&test, 1, 345)->status, ==, VIR_CHECKPOINT_FRAME_OK);
    testExpectLog(&test, "mirror vda bitmap=c1 checkpoint=c2 finish=1 "
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

static virCheckpointVerdict
testRate(TestDispatch *test, gint procedure, guint64 value, guint flags)
{
    virCheckpointProtoDomainRate args = {
        .dom = testDomain(), .path = (gchar *)"vda", .value = value, .flags = flags};

    return testCallBytes(test, procedure,
                         virCheckpointWireEncode(virCheckpointProtoDomainRate, &args));
}

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

/* Refusals. */

static void
testGuardDisk(void)
{
    static const gint rates[] = {240, 251};
    const gchar *message =
        "block copy still active: disk 'vda' already in active block job";
    virCheckpointProtoCommit commit = {.dom = testDomain(), .disk = (gchar *)"vda"};
    virCheckpointProtoRebase rebase = {.dom = testDomain(), .path = (gchar *)"vdb"};
    TestDispatch test;
    guint count = 0;
    gsize i;

    testOpen(&test, "");
    for (i = 0; i < G_N_ELEMENTS(rates); i++)
        g_assert_cmpint(testRate(&test, rates[i], 0, 0), ==,
                        VIR_CHECKPOINT_VERDICT_FORWARD);
    test.engine->disk = "vda";
    for (i = 0; i < G_N_ELEMENTS(rates); i++) {
        testRate(&test, rates[i], 0, 0);
        testExpectError(&test, ++count, rates[i], VIR_ERR_BLOCK_COPY_ACTIVE,
                        VIR_CHECKPOINT_FROM_QEMU, message);
    }
    testCallBytes(&test, 290,
                  virCheckpointWireEncode(virCheckpointProtoCommit, &commit));
    testExpectError(&test, ++count, 290, VIR_ERR_BLOCK_COPY_ACTIVE,
                    VIR_CHECKPOINT_FROM_QEMU, message);
    testCopyCall(&test, NULL, 0, 4);
    testExpectError(&test, ++count, 345, VIR_ERR_BLOCK_COPY_ACTIVE,
                    VIR_CHECKPOINT_FROM_QEMU, message);
    testCallBytes(&test, 266,
                  virCheckpointWireEncode(virCheckpointProtoRebase, &rebase));
    fakeWaitForwarded(test.client, 1);
    testDomainFlags(&test, 182, 0);
    testExpectError(&test, ++count, 182, VIR_ERR_OPERATION_INVALID,
                    VIR_CHECKPOINT_FROM_QEMU,
                    "Requested operation is not valid: domain has active block job");
    /* Who may not make the call does not learn of the job. */
    test.client->denied = VIR_ERR_ACCESS_DENIED;
    testRate(&test, 240, 0, 0);
    testExpectError(&test, ++count, 240, VIR_ERR_ACCESS_DENIED,
                    VIR_CHECKPOINT_FROM_QEMU, "'QEMU' denied");
    testClose(&test);
}

static void
testGuardXml(void)
{
    static const struct {
        gint procedure;
        const gchar *xml;
        guint flags;
        gboolean refused;
    } cases[] = {
        {185, "<domainsnapshot/>", 16, TRUE},
        {185, "<domainsnapshot><disks><disk name='vda'/></disks></domainsnapshot>", 16,
         TRUE},
        {185,
         "<domainsnapshot><disks><disk name='vda' snapshot='no'/></disks>"
         "</domainsnapshot>",
         16, FALSE},
        {185,
         "<domainsnapshot><disks><disk name='/a' snapshot='no'/></disks>"
         "</domainsnapshot>",
         16, FALSE},
        {185,
         "<domainsnapshot><disks><disk name='vdb' snapshot='no'/></disks>"
         "</domainsnapshot>",
         16, TRUE},
        {185, "<domainsnapshot/>", 1, FALSE},
        {185, "<domainsnapshot", 0, FALSE},
        {161, "<disk><target dev='vda'/></disk>", 1, TRUE},
        {161, "<disk><target dev='vda'/></disk>", 3, TRUE},
        {161, "<disk><target dev='vda'/></disk>", 2, FALSE},
        {161, "<disk><target dev='vdb'/></disk>", 1, FALSE},
        {161, "<interface/>", 1, FALSE},
        {392, "virtio-disk0", 1, TRUE},
        {392, "virtio-disk1", 1, FALSE},
        {13, "<disk><target dev='vda'/></disk>", 0, TRUE},
    };
    TestDispatch test;
    guint sent = 0;
    guint forwarded = 0;
    gsize i;

    testOpen(&test, "");
    test.engine->disk = "vda";
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        testText(&test, cases[i].procedure, cases[i].xml, cases[i].flags);
        if (cases[i].refused)
            testExpectError(
                &test, ++sent, cases[i].procedure, VIR_ERR_BLOCK_COPY_ACTIVE,
                VIR_CHECKPOINT_FROM_QEMU,
                "block copy still active: disk 'vda' already in active block job");
        else
            fakeWaitForwarded(test.client, ++forwarded);
    }
    testClose(&test);
}

static void
testGuardBackup(void)
{
    static const struct {
        const gchar *xml;
        gboolean refused;
    } cases[] = {
        {"<domainbackup/>", TRUE},
        {"<domainbackup><disks><disk name='vda'/></disks></domainbackup>", TRUE},
        {"<domainbackup><disks><disk name='vdb'/></disks></domainbackup>", FALSE},
        {"<domainbackup><disks><disk name='vda' backup='no'/><disk name='vdb'/></disks>"
         "</domainbackup>",
         FALSE},
    };
    TestDispatch test;
    guint sent = 0;
    guint forwarded = 0;
    gsize i;

    testOpen(&test, "");
    test.engine->disk = "vda";
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        virCheckpointProtoBackup args = {.dom = testDomain(),
                                         .xml = (gchar *)cases[i].xml};

        testCallBytes(&test, 421,
                      virCheckpointWireEncode(virCheckpointProtoBackup, &args));
        if (cases[i].refused)
            testExpectError(&test, ++sent, 421, VIR_ERR_INTERNAL_ERROR,
                            VIR_CHECKPOINT_FROM_QEMU,
                            "internal error: disk 'vda' has a blockjob assigned");
        else
            fakeWaitForwarded(test.client, ++forwarded);
    }
    testClose(&test);
}

/* Domains. */

static void
testStart(void)
{
    virCheckpointProtoXmlFlags create = {
        .xml =
            (gchar *)"<domain><uuid>11111111222243338444555555555555</uuid></domain>"};
    virCheckpointProtoXmlFlags fresh = {.xml = (gchar *)"<domain/>"};
    TestDispatch test;

    testOpen(&test, "");
    testDomainFlags(&test, 196, 0);
    fakeWaitForwarded(test.client, 1);
    testExpectLog(&test, "settle " FAKE_UUID);
    testCallBytes(&test, 10,
                  virCheckpointWireEncode(virCheckpointProtoXmlFlags, &create));
    fakeWaitForwarded(test.client, 2);
    testExpectLog(&test, "settle " FAKE_UUID);
    testCallBytes(&test, 10,
                  virCheckpointWireEncode(virCheckpointProtoXmlFlags, &fresh));
    fakeWaitForwarded(test.client, 3);
    testExpectLog(&test, "");
    test.engine->failure = VIR_ERR_OPERATION_INVALID;
    testDomainFlags(&test, 9, 0);
    testExpectError(&test, 1, 9, VIR_ERR_OPERATION_INVALID, VIR_CHECKPOINT_FROM_QEMU,
                    "Requested operation is not valid: told to fail");
    testClose(&test);
}

static void
testStartWithFiles(void)
{
    virCheckpointProtoDomainFlags args = {.dom = testDomain()};
    g_autoptr(GBytes) bytes =
        virCheckpointWireEncode(virCheckpointProtoDomainFlags, &args);
    g_autoptr(GByteArray) payload = g_byte_array_new();
    g_autoptr(virCheckpointFrame) frame = NULL;
    TestDispatch test;

    testOpen(&test, "");
    g_byte_array_append(payload, (const guint8 *)"\0\0\0", 4);
    g_byte_array_append(payload, g_bytes_get_data(bytes, NULL),
                        (guint)g_bytes_get_size(bytes));
    frame = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 310,
                                  VIR_CHECKPOINT_FRAME_CALL_WITH_FDS, 1,
                                  VIR_CHECKPOINT_FRAME_OK, payload->data, payload->len);
    g_assert_cmpint(
        virCheckpointDispatchHooks()->call(test.client, frame, test.dispatch), ==,
        VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpmem(fakeWaitForwarded(test.client, 1)->bytes->data, frame->bytes->len,
                    frame->bytes->data, frame->bytes->len);
    testExpectLog(&test, "settle " FAKE_UUID);
    testClose(&test);
}

static void
testUndefine(void)
{
    g_autoptr(virCheckpointFrame) reply = NULL;
    TestDispatch test;
    const virCheckpointClientHooks *hooks = virCheckpointDispatchHooks();

    testOpen(&test, "a b<a");
    /* Running: it only becomes transient. */
    testDomainFlags(&test, 231, 0);
    fakeWaitForwarded(test.client, 1);
    test.client->off = TRUE;
    testDomainFlags(&test, 231, 1);
    testExpectError(&test, 1, 231, VIR_ERR_OPERATION_INVALID, VIR_CHECKPOINT_FROM_QEMU,
                    "Requested operation is not valid: cannot delete inactive domain "
                    "with 3 checkpoints");
    testDomainFlags(&test, 231, 16);
    fakeWaitForwarded(test.client, 2);
    g_assert_nonnull(test.client->tag);
    testExpectLog(&test, "");
    reply = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 231,
                                  VIR_CHECKPOINT_FRAME_REPLY, test.serial,
                                  VIR_CHECKPOINT_FRAME_OK, NULL, 0);
    g_assert_cmpint(hooks->reply(test.client, reply, test.client->tag, test.dispatch),
                    ==, VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testAnswer(&test, 2, 231)->status, ==, VIR_CHECKPOINT_FRAME_OK);
    testExpectLog(&test, "drop " FAKE_UUID);
    testClose(&test);
}

static void
testUndefineFails(void)
{
    g_autoptr(virCheckpointFrame) reply = NULL;
    TestDispatch test;

    testOpen(&test, "a");
    test.client->off = TRUE;
    testDomainFlags(&test, 231, 16);
    fakeWaitForwarded(test.client, 1);
    reply = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 231,
                                  VIR_CHECKPOINT_FRAME_REPLY, test.serial,
                                  VIR_CHECKPOINT_FRAME_ERROR, NULL, 0);
    g_assert_cmpint(virCheckpointDispatchHooks()->reply(
                        test.client, reply, test.client->tag, test.dispatch),
                    ==, VIR_CHECKPOINT_VERDICT_FORWARD);
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
    g_test_add_func("/dispatch/copy-with-our-parameters", testCopy);
    g_test_add_func("/dispatch/copy-with-wrong-parameters", testCopyRefused);
    g_test_add_func("/dispatch/job-info-speed-abort", testJobs);
    g_test_add_func("/dispatch/jobs-are-denied-as-libvirt-denies", testJobsDenied);
    g_test_add_func("/dispatch/second-job-on-a-mirrored-disk-is-refused",
                    testGuardDisk);
    g_test_add_func("/dispatch/snapshot-and-detach-of-a-mirrored-disk", testGuardXml);
    g_test_add_func("/dispatch/backup-of-a-mirrored-disk", testGuardBackup);
    g_test_add_func("/dispatch/start-waits-for-recovery", testStart);
    g_test_add_func("/dispatch/start-with-files-is-decoded-behind-the-count",
                    testStartWithFiles);
    g_test_add_func("/dispatch/undefine-keeps-or-drops-checkpoints", testUndefine);
    g_test_add_func("/dispatch/failed-undefine-drops-nothing", testUndefineFails);
    g_test_add_func("/dispatch/one-stuck-client-holds-nobody-else", testStuckClient);
    g_test_add_func("/dispatch/other-traffic-is-left-alone", testOtherTraffic);
    return g_test_run();
}
