/*
 * guardtest.c: what is refused beside a mirror; domains come and go
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "dispatchcase.h"

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
    testExpectLog(&test, "start comes|settle " FAKE_UUID "|start goes");
    testCallBytes(&test, 10,
                  virCheckpointWireEncode(virCheckpointProtoXmlFlags, &create));
    fakeWaitForwarded(test.client, 2);
    testExpectLog(&test, "start comes|settle " FAKE_UUID "|start goes");
    testCallBytes(&test, 10,
                  virCheckpointWireEncode(virCheckpointProtoXmlFlags, &fresh));
    fakeWaitForwarded(test.client, 3);
    testExpectLog(&test, "");
    test.engine->failure = VIR_ERR_OPERATION_INVALID;
    testDomainFlags(&test, 9, 0);
    testExpectError(&test, 1, 9, VIR_ERR_OPERATION_INVALID, VIR_CHECKPOINT_FROM_QEMU,
                    "Requested operation is not valid: told to fail");
    testExpectLog(&test, "start comes|settle " FAKE_UUID "|start refused");
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
    testExpectLog(&test, "start comes|settle " FAKE_UUID "|start goes");
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
    testExpectLog(&test, "leave " FAKE_UUID);
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
    testExpectLog(&test, "leave " FAKE_UUID);
    testClose(&test);
}

static void
testListDomains(void)
{
    static const struct {
        guint flags;
        const gchar *names;
    } cases[] = {
        {VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, " d2 d3"},
        {VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT, " d1 d4"},
    };
    virCheckpointProtoDomainsArgs args = {.need_results = 1, .flags = 1};
    TestDispatch test;
    gsize i;

    testOpen(&test, "a");
    g_assert_cmpint(
        testCallBytes(&test, 273,
                      virCheckpointWireEncode(virCheckpointProtoDomainsArgs, &args)),
        ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(virCheckpointProtoDomains) reply = {0};
        g_autoptr(GString) names = g_string_new(NULL);
        guint at;

        args.flags = 1 | cases[i].flags;
        testCallBytes(&test, 273,
                      virCheckpointWireEncode(virCheckpointProtoDomainsArgs, &args));
        g_assert_true(testDecode((xdrproc_t)xdr_virCheckpointProtoDomains,
                                 testAnswer(&test, (guint)i + 1, 273), &reply));
        for (at = 0; at < reply.domains.domains_len; at++)
            g_string_append_printf(names, " %s", reply.domains.domains_val[at].name);
        g_assert_cmpstr(names->str, ==, cases[i].names);
        g_assert_cmpuint(reply.ret, ==, 2);
    }
    testClose(&test);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guard/second-job-on-a-mirrored-disk-is-refused", testGuardDisk);
    g_test_add_func("/guard/snapshot-and-detach-of-a-mirrored-disk", testGuardXml);
    g_test_add_func("/guard/backup-of-a-mirrored-disk", testGuardBackup);
    g_test_add_func("/guard/start-waits-for-recovery", testStart);
    g_test_add_func("/guard/start-with-files-is-decoded-behind-the-count",
                    testStartWithFiles);
    g_test_add_func("/guard/undefine-keeps-or-drops-checkpoints", testUndefine);
    g_test_add_func("/guard/failed-undefine-drops-nothing", testUndefineFails);
    g_test_add_func("/guard/domains-with-checkpoints-of-either-kind", testListDomains);
    return g_test_run();
}
