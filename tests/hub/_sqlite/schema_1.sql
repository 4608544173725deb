-- A database of schema 1, as the release that had it left it: ids used again, keys, a purged topic.
BEGIN TRANSACTION;
CREATE TABLE epochs (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL
        );
INSERT INTO "epochs" VALUES(1,'s2xf9cch',1);
CREATE TABLE placed (
            topic INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (topic, position)
        ) WITHOUT ROWID;
INSERT INTO "placed" VALUES(1,1);
INSERT INTO "placed" VALUES(1,2);
INSERT INTO "placed" VALUES(1,3);
INSERT INTO "placed" VALUES(2,3);
INSERT INTO "placed" VALUES(3,3);
INSERT INTO "placed" VALUES(3,4);
INSERT INTO "placed" VALUES(5,6);
CREATE TABLE records (
            position INTEGER PRIMARY KEY, id TEXT NOT NULL, own INTEGER NOT NULL,
            dedup TEXT, private INTEGER NOT NULL, published REAL NOT NULL,
            topics TEXT NOT NULL, frame BLOB NOT NULL
        );
INSERT INTO "records" VALUES(1,'s2xf9cch-1',0,'k',0,1000.0,'1',X'69643A2073327866396363682D310A646174613A20310A0A');
INSERT INTO "records" VALUES(2,'x',1,NULL,0,1000.0,'1',X'69643A20780A646174613A20320A0A');
INSERT INTO "records" VALUES(3,'x',1,'l',0,1000.0,'2 1 3',X'69643A20780A646174613A20330A0A');
INSERT INTO "records" VALUES(4,'x',1,NULL,1,1000.0,'3',X'69643A20780A646174613A20340A0A');
INSERT INTO "records" VALUES(6,'s2xf9cch-6',0,NULL,0,1000.0,'5',X'69643A2073327866396363682D360A646174613A20360A0A');
CREATE TABLE state (
            last INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
            floor INTEGER NOT NULL, trims INTEGER NOT NULL
        );
INSERT INTO "state" VALUES(6,5,93,0,1);
CREATE TABLE topics (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            events INTEGER NOT NULL, bytes INTEGER NOT NULL, trimmed INTEGER NOT NULL
        );
INSERT INTO "topics" VALUES(1,'a',3,54,0);
INSERT INTO "topics" VALUES(2,'c',1,15,0);
INSERT INTO "topics" VALUES(3,'b',2,30,0);
INSERT INTO "topics" VALUES(4,'gone',0,0,5);
INSERT INTO "topics" VALUES(5,'d',1,24,0);
CREATE INDEX empty_topics ON topics (trimmed) WHERE events = 0;
CREATE INDEX own_ids ON records (id, position) WHERE own = 1;
CREATE UNIQUE INDEX dedup_keys ON records (dedup) WHERE dedup IS NOT NULL;
COMMIT;
PRAGMA application_id = 1211323474;
PRAGMA user_version = 1;
